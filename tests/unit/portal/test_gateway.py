"""The way of the pages' scripts to the API: what it lets through, whom, and what it adds."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import World
from tests.unit.portal.conftest import URL, Browser
from tests.unit.portal.test_pages import upload

OWN = {"Origin": URL, "Sec-Fetch-Site": "same-origin"}
BODY = {"path": "/home/alice/up.bin", "transferDirectives": {"transferMethod": "s3", "fileSize": 10}}
UPLOAD = "/portal/api/filesystem/alps/transfer/upload"


def code(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return str(answer.json()["code"])


async def test_it_begins_an_upload_in_the_persons_name(alice: Browser, world: World) -> None:
    answer = await alice.client.post(UPLOAD, json=BODY, headers={**OWN, "X-CSRF-Token": alice.csrf, "Idempotency-Key": "one"})
    assert answer.status_code == 201, answer.text
    again = await alice.client.post(UPLOAD, json=BODY, headers={**OWN, "X-CSRF-Token": alice.csrf, "Idempotency-Key": "one"})
    assert again.json()["transferId"] == answer.json()["transferId"]
    assert (await world.the_transfer()).owner == "alice"
    listed = await alice.client.get("/portal/api/transfers?limit=1")
    assert [one["id"] for one in listed.json()["transfers"]] == [answer.json()["transferId"]]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-CSRF-Token": "wrong"},
        {"X-CSRF-Token": "right", "Origin": "https://evil.example"},
        {"X-CSRF-Token": "right", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_what_changes_anything_needs_the_secret_of_a_page_of_ours(
    alice: Browser, world: World, headers: dict[str, str]
) -> None:
    sent = {name: alice.csrf if value == "right" else value for name, value in headers.items()}
    assert code(await alice.client.post(UPLOAD, json=BODY, headers=sent), 403) == "foreign_request"
    assert await world.all_transfers() == []


async def test_another_site_cannot_even_look(alice: Browser) -> None:
    assert code(await alice.client.get("/portal/api/transfers", headers={"Sec-Fetch-Site": "cross-site"}), 403)


async def test_nobody_gets_through_without_signing_in(stranger: Browser, issuer_token: str) -> None:
    assert code(await stranger.client.get("/portal/api/transfers"), 401) == "not_authenticated"
    # A credential from elsewhere is not passed on: who has one does not need this way.
    answer = await stranger.client.get("/portal/api/transfers", headers={"Authorization": f"Bearer {issuer_token}"})
    assert code(answer, 401) == "not_authenticated"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/tokens"),
        ("POST", "/tokens"),
        ("PUT", "/accounts/password"),
        ("GET", "/admin/settings"),
        ("PATCH", "/admin/settings"),
        ("DELETE", "/filesystem/alps/ops/rm"),
        ("POST", "/compute/alps/jobs"),
        ("GET", "/transfers/../tokens"),
        ("GET", "/transfers/%2e%2e/tokens"),
        ("GET", "/transfers/x/../../tokens"),
        ("GET", "/docs"),
        ("POST", "/transfers"),
        ("HEAD", "/transfers"),
    ],
)
async def test_it_passes_nothing_that_is_not_on_its_list(admin: Browser, method: str, path: str) -> None:
    url = httpx.URL(URL).copy_with(raw_path=f"/portal/api{path}".encode())
    answer = await admin.client.request(method, url, headers={**OWN, "X-CSRF-Token": admin.csrf})
    assert answer.status_code == 404, answer.text
    assert method == "HEAD" or answer.json()["code"] == "route_not_found"


async def test_other_peoples_transfers_are_not_there(world: World, alice: Browser, bob: Browser) -> None:
    transfer_id = await upload(world)
    assert (await alice.client.get(f"/portal/api/transfers/{transfer_id}")).status_code == 200
    for path in ("", "/parts", "/events", "/download-url"):
        assert code(await bob.client.get(f"/portal/api/transfers/{transfer_id}{path}"), 404) == "transfer_not_found"


async def test_events_come_as_they_happen(world: World, alice: Browser, application: FastAPI) -> None:
    """Through a stream: a client in the same process would wait for its end, which here comes with the transfer's."""
    transfer_id = await upload(world)
    await alice.open(f"/portal/transfers/{transfer_id}")
    await alice.send(f"/portal/transfers/{transfer_id}/cancel")
    await world.work(3)
    answer = await alice.client.get(f"/portal/api/transfers/{transfer_id}/events", headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: story" in answer.text
    assert "event: state" in answer.text
