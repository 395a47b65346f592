"""Every page, with nothing on it and with something; and what is nobody else's business."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from tests.fakes.world import ALICE, World
from tests.unit.portal.conftest import Browser

from stagecoach.flows.begin_transfer import begin_upload


async def upload(world: World, name: str = "big.bin", content: bytes = b"x" * 1000) -> str:
    """Begun by alice."""
    begun = await begin_upload(world.tools, ALICE, "alps", f"/home/alice/{name}", len(content), None)
    assert world.put_by_client(begun, content)
    return begun.transfer.id


PAGES = ("/portal/account", "/portal/tokens", "/portal/files", "/portal/transfers", "/portal/welcome")


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_says_something_where_there_is_nothing(alice: Browser, path: str) -> None:
    await alice.open(path)
    assert alice.page.url.path == path


async def test_the_first_page_is_light(stranger: Browser, alice: Browser) -> None:
    """With all that it loads, nothing of it compressed."""
    for browser, path in ((stranger, "/portal/sign-in"), (alice, "/portal/files"), (alice, "/portal/transfers")):
        answer = await browser.open(path)
        size = len(answer.content)
        for address in re.findall(r'(?:src|href)="(/portal/static/[^"]+)"', answer.text):
            asset = await browser.client.get(address)
            assert asset.status_code == 200, address
            size += len(asset.content)
        assert size <= 100 * 1024, (path, size)
    answer = await stranger.client.get(address)
    assert "immutable" in answer.headers["cache-control"]
    again = await stranger.client.get(address.partition("?")[0], headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


async def test_a_transfer_has_a_row_and_a_page_with_its_road_and_its_story(world: World, alice: Browser) -> None:
    transfer_id = await upload(world)
    await alice.open("/portal/transfers")
    assert "big.bin Upload to alps" in alice.text
    await alice.open(f"/portal/transfers/{transfer_id}")
    assert "To the staging area, now" in alice.text
    assert "Cancel the transfer" in alice.text
    await world.work()
    rows = await alice.client.get("/portal/transfers/rows")
    assert rows.status_code == 200
    assert "<tr" in rows.text
    assert "<html" not in rows.text
    now = await alice.client.get(f"/portal/transfers/{transfer_id}/now")
    assert now.status_code == 200
    assert "Waiting for the system" in now.text


async def test_what_has_ended_is_not_asked_about_again(world: World, alice: Browser) -> None:
    transfer_id = await upload(world)
    await alice.open(f"/portal/transfers/{transfer_id}")
    await alice.send(f"/portal/transfers/{transfer_id}/cancel")
    assert "It is cancelled" in alice.text
    await world.work(3)
    for path in ("/portal/transfers/rows", f"/portal/transfers/{transfer_id}/now"):
        assert (await alice.client.get(path)).status_code == 286
    await alice.open(f"/portal/transfers/{transfer_id}")
    assert "Cancel the transfer" not in alice.text
    assert "hx-get" not in alice.page.text
    await alice.open("/portal/transfers?show=ended")
    assert "big.bin" in alice.text
    await alice.open("/portal/transfers?show=failed")
    assert "None of this kind" in alice.text


async def test_a_staged_download_is_fetched_shared_and_finished(world: World, alice: Browser) -> None:
    world.files.add_file("/home/alice/result.h5", "alice", b"y" * 5000)
    await alice.open("/portal/files/alps/entry?path=/home/alice/result.h5")
    await alice.send("/portal/files/alps/fetch?path=%2Fhome%2Falice%2Fresult.h5")
    transfer_id = alice.page.url.path.rpartition("/")[2]
    transfer = await world.get(transfer_id)
    for _ in range(4):
        await world.work(2)
        world.let_cluster_work()
    await world.work(2)
    await alice.open(f"/portal/transfers/{transfer_id}")
    assert "Ready to fetch, now" in alice.text, (alice.text, transfer)
    answer = await alice.client.get(f"/portal/transfers/{transfer_id}/file", follow_redirects=False)
    assert answer.status_code == 303
    assert "X-Amz-Signature" in answer.headers["location"] or "://" in answer.headers["location"]
    assert answer.headers["location"] not in alice.page.text
    await alice.send(f"/portal/transfers/{transfer_id}/share")
    assert "without an account, until 18 May 2030" in alice.text
    day = (world.clock.now() + timedelta(days=1)).date().isoformat()
    await alice.send(f"/portal/transfers/{transfer_id}/share", until=day)
    assert "without an account, until 18 May 2030, 23:59 UTC" in alice.text
    for no_day in ("2030-05-16", "2030-02-30", "tomorrow"):
        await alice.open(f"/portal/transfers/{transfer_id}")
        await alice.send(f"/portal/transfers/{transfer_id}/share", until=no_day)
        assert "a day that is not over yet" in alice.text
    await alice.open(f"/portal/transfers/{transfer_id}")
    await alice.send(f"/portal/transfers/{transfer_id}/finish")
    assert "The staged copy is removed." in alice.text


async def test_the_top_is_the_portals_for_who_looks_and_the_apis_for_all_else(stranger: Browser) -> None:
    assert (await stranger.client.get("/")).url.path.startswith("/portal/")
    for method in ("PUT", "PATCH", "DELETE", "POST"):
        answer = await stranger.client.request(method, "/")
        assert answer.status_code in {401, 404, 405}, method
        assert answer.json()["errorType"] == "error"
