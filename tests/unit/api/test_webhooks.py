"""A request may name a webhook on an allowed host; what is shown of it afterwards is the host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.receiver import SECRET
from tests.fakes.world import World, open_world, world_settings
from tests.unit.api.answers import problem
from tests.unit.api.test_transfers import BODY, DOWNLOAD, SIZE, TARGET, UPLOAD, require_nothing_made

URL = "https://hooks.example.org/in?token=s3cret"
FLAT = {"path": TARGET, "fileSize": SIZE}
DOWN = {"path": TARGET, "transferDirectives": {}}
FORMS: list[tuple[str, dict[str, Any]]] = [(UPLOAD, BODY), (UPLOAD, FLAT), (DOWNLOAD, DOWN), (DOWNLOAD, {"path": TARGET})]


@pytest.fixture
async def world(tmp_path: Path, database_template: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """With webhooks, unless the test is about a service without."""
    webhooks = {"allowed_hosts": ["hooks.example.org"], "signing_secret": SECRET}
    settings = world_settings(webhooks={} if "without" in request.node.name else webhooks)
    async with open_world(tmp_path, database_template, settings) as opened:
        yield opened


@pytest.mark.parametrize(("route", "body"), FORMS)
@pytest.mark.parametrize("name", ["webhookUrl", "webhook_url"])
async def test_every_form_may_name_one_and_nothing_but_its_host_is_shown(
    alice: httpx.AsyncClient, world: World, route: str, body: dict[str, Any], name: str
) -> None:
    if route == DOWNLOAD:
        world.files.add_file(TARGET, "alice", bytes(SIZE))
    answer = await alice.post(route, json={**body, name: URL})
    assert answer.status_code == 201, answer.text
    assert "s3cret" not in answer.text
    assert (await world.the_transfer()).webhook_url == URL
    shown = await alice.get(f"/transfers/{answer.json()['transferId']}")
    assert shown.json()["webhook"] == {"host": "hooks.example.org", "pending": 1, "trouble": None}
    listed = await alice.get("/transfers")
    assert "s3cret" not in shown.text + listed.text
    assert "webhook" not in listed.json()["transfers"][0]


@pytest.mark.parametrize(("route", "body"), FORMS)
async def test_one_that_is_not_allowed_is_refused_before_anything_is_made(
    alice: httpx.AsyncClient, world: World, route: str, body: dict[str, Any]
) -> None:
    for url in ("https://elsewhere.example.org/s3cret", URL.replace("https", "http"), "s3cret", URL + "#s3cret"):
        refused = await alice.post(route, json={**body, "webhookUrl": url})
        assert "s3cret" not in problem(refused, 400, "webhook_refused")["message"]
    problem(await alice.post(route, json={**body, "webhookUrl": URL + "x" * 2048}), 400, "validation_error")
    await require_nothing_made(world)


async def test_a_service_without_webhooks_says_so(alice: httpx.AsyncClient, world: World) -> None:
    refused = await alice.post(UPLOAD, json={**BODY, "webhookUrl": URL})
    assert "sends no webhooks" in problem(refused, 400, "webhook_refused")["message"]
    await require_nothing_made(world)
    plain = (await alice.post(UPLOAD, json=BODY)).json()
    assert (await alice.get(f"/transfers/{plain['transferId']}")).json()["webhook"] is None
