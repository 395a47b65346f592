"""What administrators see and change, and that nobody else does."""

from __future__ import annotations

import re

import pytest
from tests.fakes.world import World
from tests.unit.portal.conftest import PASSWORD, Browser
from tests.unit.portal.test_pages import upload

from stagecoach.flows.make_account import add_account

PAGES = ("", "/people", "/limits", "/transfers", "/audit", "/orphans", "/orphans?look=now")


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_with_nothing_and_with_something(world: World, admin: Browser, path: str) -> None:
    await admin.open(f"/portal/admin{path}")
    await upload(world)
    await world.work(2)
    await add_account(world.tools, "dora", PASSWORD, None, is_admin=False)
    await admin.open(f"/portal/admin{path}")


async def test_nobody_else_finds_them(alice: Browser) -> None:
    for path in PAGES:
        await alice.open(f"/portal/admin{path}", 404)
    assert "/portal/admin" not in alice.page.text
    form = {"csrf": alice.csrf, "name": "s3.max_part_size", "value": "5"}
    assert (await alice.client.post("/portal/admin/limits", data=form)).status_code == 404


async def test_the_next_upload_uses_a_changed_part_size(world: World, admin: Browser) -> None:
    await admin.open("/portal/admin/limits")
    await admin.send("/portal/admin/limits", name="s3.max_part_size", value="5 MiB")
    assert "s3.max_part_size is changed" in admin.text
    assert world.tools.settings.s3.max_part_size_bytes == 5 * 1024**2
    for value in ("many", "-1", "1e9", "5 EB", "1"):
        await admin.send("/portal/admin/limits", name="s3.max_part_size", value=value)
        assert 'role="alert"' in admin.page.text
    assert world.tools.settings.s3.max_part_size_bytes == 5 * 1024**2
    await admin.send("/portal/admin/limits", name="s3.max_part_size", unset="yes")
    assert "as the settings file says" in admin.text
    assert world.tools.settings.s3.max_part_size_bytes == 1024**3


async def test_what_each_user_uses_stands_beside_the_quota(world: World, admin: Browser) -> None:
    await admin.open("/portal/admin/limits")
    assert "Nobody has anything under way." in admin.text
    await upload(world)
    await admin.open("/portal/admin/limits")
    assert "There is no quota" in admin.text
    await admin.send("/portal/admin/limits", name="s3.max_staged_bytes_per_user", value="1 GB")
    (row,) = re.findall(r'<table id="usage">.*<tbody>(.*?)</tbody>', admin.page.text, re.DOTALL)
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row))
    assert re.search(r"alice .*% of the quota .*1 of \d+ on alps", words), words


@pytest.mark.parametrize(("text", "size"), [("1.5 GB", 1_500_000_000), ("2TiB", 2 * 1024**4), ("7", 7), ("", None)])
async def test_sizes_may_have_units_and_a_quota_may_be_none(world: World, admin: Browser, text: str, size: int | None) -> None:
    await admin.open("/portal/admin/limits")
    await admin.send("/portal/admin/limits", name="s3.max_staged_bytes_per_user", value=text)
    assert world.tools.settings.s3.max_staged_bytes_per_user == size


async def test_a_system_is_closed_with_a_reason_and_opened_again(world: World, admin: Browser, alice: Browser) -> None:
    world.files.add_file("/home/alice/x", "alice", b"x")
    await admin.open("/portal/admin")
    await admin.send("/portal/admin/systems/alps", reason="Maintenance until Tuesday.")
    assert "Maintenance until Tuesday." in admin.text
    await alice.open("/portal/files/alps/entry?path=/home/alice/x")
    await alice.send("/portal/files/alps/fetch?path=%2Fhome%2Falice%2Fx")
    assert "Maintenance until Tuesday." in alice.text
    await admin.send("/portal/admin/systems/alps")
    assert "alps is open." in admin.text
    assert world.tools.system("alps").settings.enabled


async def test_an_account_is_made_given_a_user_and_disabled(world: World, admin: Browser) -> None:
    await admin.open("/portal/admin/people")
    await admin.send("/portal/admin/people", name="dora", password=PASSWORD, user="")
    assert "waits for a user" in admin.text
    await admin.send("/portal/admin/people/dora", user="dora7")
    assert 'value="dora7"' in admin.page.text
    await admin.send("/portal/admin/people/dora", user="dora7", disabled="yes")
    account = await world.tools.accounts.find("dora")
    assert account is not None
    assert (account.username, account.is_disabled) == ("dora7", True)
    await admin.send("/portal/admin/people", name="dora", password=PASSWORD, user="")
    assert 'role="alert"' in admin.page.text


async def test_everybodys_transfers_are_seen_and_none_is_offered_to_be_changed(
    world: World, admin: Browser, bob: Browser
) -> None:
    transfer_id = await upload(world)
    await admin.open("/portal/admin/transfers?owner=alice")
    assert "big.bin" in admin.text
    await admin.open("/portal/admin/transfers?owner=bob")
    assert "This user has none." in admin.text
    await admin.open(f"/portal/transfers/{transfer_id}")
    assert "Owner alice" in admin.text
    await admin.open("/portal/transfers")
    assert "No transfers yet" in admin.text
    for path in ("", "/now"):
        assert (await bob.client.get(f"/portal/transfers/{transfer_id}{path}")).status_code == 404
    sent_to = await bob.client.get(f"/portal/transfers/{transfer_id}/file", follow_redirects=False)
    assert sent_to.headers["location"] == "/portal/transfers"
    form = {"csrf": bob.csrf, "back": "/portal/transfers"}
    for verb in ("cancel", "retry", "finish", "share"):
        answer = await bob.client.post(f"/portal/transfers/{transfer_id}/{verb}", data=form)
        assert "There is no transfer with this id among yours." in answer.text, answer.text
    assert (await world.get(transfer_id)).state == "receiving"


async def test_the_audit_log_names_who_did_what(admin: Browser, alice: Browser, world: World) -> None:
    await alice.open("/portal/files/alps?path=/home/alice")
    await alice.send("/portal/files/alps/folder?path=%2Fhome%2Falice", name="new")
    await admin.open("/portal/admin/audit?who=alice")
    assert "file.mkdir" in admin.text
    await admin.open("/portal/admin/limits")
    await admin.send("/portal/admin/limits", name="s3.max_staged_bytes_per_user", value="5 GB")
    await admin.send("/portal/admin/limits", name="s3.max_staged_bytes_per_user", unset="yes")
    await admin.open("/portal/admin/audit")
    (was,) = re.findall(r"s3\.max_staged_bytes_per_user: (\S+) → 5000000000", admin.text)
    assert "s3.max_staged_bytes_per_user: 5000000000 → as in the file" in admin.text
    assert was != "5000000000"
    await admin.open("/portal/admin/audit?since=2031-01-01")
    assert "Nothing happened since then" in admin.text
    await admin.open("/portal/admin/audit?since=yesterday&after=-1")


async def test_orphans_are_looked_for_when_asked(world: World, admin: Browser) -> None:
    await admin.open("/portal/admin/orphans")
    assert "Nothing is left behind" not in admin.text
    await admin.open("/portal/admin/orphans?look=now")
    assert "Nothing is left behind" in admin.text
