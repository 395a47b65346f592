"""A stream of events tells the whole story and then what happens, costs one query an interval, and always comes to its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import ALICE, World, open_world, world_settings
from tests.unit.api.answers import problem
from tests.unit.api.conftest import Issuer, with_token
from tests.unit.api.test_transfers import SIZE, TARGET, begun, put

from stagecoach.core.errors import DatabaseUnavailable
from stagecoach.core.transfer import State
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.serving import WebServer
from stagecoach.settings import ServerSettings

SECONDS = 20


@dataclass
class Event:
    """One event of a stream; ``data`` is its JSON."""

    kind: str
    id: str | None
    data: dict[str, Any]


def events(text: str) -> list[Event]:
    """As a browser would read them."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if lines:
            found.append(Event(lines["event"], lines.get("id"), json.loads(lines["data"])))
    return found


def states(found: list[Event], kind: str) -> list[str]:
    return [event.data["state"] for event in found if event.kind == kind]


@pytest.fixture
async def world(tmp_path: Path, database_template: Path) -> AsyncIterator[World]:
    """Its streams are quick."""
    settings = world_settings(events={"poll_seconds": 0.05, "heartbeat_seconds": 0.2, "max_streams_per_user": 3})
    async with open_world(tmp_path, database_template, settings) as opened:
        yield opened


@pytest.fixture
async def service(application: FastAPI) -> AsyncIterator[WebServer]:
    """The application behind a real web server, whose lifespan is left out: the world is open already."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = WebServer(application, ServerSettings(host="127.0.0.1", port=port))
    server.config.lifespan = "off"
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield server
    server.should_exit = True
    await asyncio.wait_for(serving, SECONDS)


def client_of(server: WebServer, token: str) -> httpx.AsyncClient:
    url = f"http://127.0.0.1:{server.config.port}"
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=SECONDS, trust_env=False)


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(SECONDS):
        while not look():
            await asyncio.sleep(0.01)


async def shown_until(answer: httpx.Response, text: str) -> str:
    """What came of a stream until ``text`` was in it."""
    got = ""
    async with asyncio.timeout(SECONDS):
        async for piece in answer.aiter_text():
            got += piece
            if text in got:
                return got
    raise AssertionError(f"it ended without {text}: {got}")


def streams(application: FastAPI) -> Any:
    return application.state.streams


async def test_a_transfer_that_has_ended_is_told_from_its_first_line_and_then_the_stream_ends(
    alice: httpx.AsyncClient, world: World
) -> None:
    body = await begun(alice)
    await cancel_transfer(world.tools, ALICE, body["transferId"])
    answer = await alice.get(f"/transfers/{body['transferId']}/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    found = events(answer.text)
    assert [event.kind for event in found] == ["story"] * 4 + ["state"]
    shown = (await alice.get(f"/transfers/{body['transferId']}")).json()
    assert [event.data for event in found[:4]] == shown["history"]
    assert states(found, "story") == ["preparing", "receiving", "cancelling", "cancelled"]
    assert found[-1].data == {name: value for name, value in shown.items() if name not in {"history", "jobLog", "webhook"}}
    numbers = [int(event.id or 0) for event in found[:4]]
    assert numbers == sorted(set(numbers))

    rest = await alice.get(f"/transfers/{body['transferId']}/events", headers={"Last-Event-ID": str(numbers[1])})
    assert [event.id for event in events(rest.text)] == [str(numbers[2]), str(numbers[3]), None]
    over = await alice.get(f"/transfers/{body['transferId']}/events", headers={"Last-Event-ID": str(numbers[3])})
    assert (over.status_code, over.content) == (204, b"")
    for strange in ("x", "", "-1", "²", "9" * 40):
        headers = [(b"Last-Event-ID", strange.encode())]
        assert len(events((await alice.get(f"/transfers/{body['transferId']}/events", headers=headers)).text)) == 5


async def test_what_happens_is_told_as_it_happens(alice: httpx.AsyncClient, world: World) -> None:
    body = await begun(alice)
    transfer_id = body["transferId"]
    stream = asyncio.create_task(alice.get(f"/transfers/{transfer_id}/events"))
    await until_told(world, transfer_id, lambda told: told.state is State.RECEIVING)
    put(world, body["transferDirectives"])
    for state in (State.STAGED, State.QUEUED):
        await world.work()
        await until_told(world, transfer_id, lambda told, state=state: told.state is state)
    world.nodes.start_pending()
    await world.work()
    await until_told(world, transfer_id, lambda told: told.state is State.MOVING)
    moving = await world.get(transfer_id)
    await world.transfers.save(replace(moving, bytes_moved=7, rate_bytes_per_second=3.5), next_check_at=world.clock.now())
    await until_told(world, transfer_id, lambda told: told.bytes_moved == 7)
    world.nodes.finish_running()
    await world.work()
    found = events((await asyncio.wait_for(stream, SECONDS)).text)
    assert states(found, "state") == ["receiving", "staged", "queued", "moving", "done"]
    assert states(found, "story") == ["preparing", "receiving", "staged", "queued", "moving", "done"]
    (progress,) = [event for event in found if event.kind == "progress"]
    assert progress.data == {
        "id": transfer_id,
        "sizeBytes": SIZE,
        "bytesStaged": SIZE,
        "bytesMoved": 7,
        "rateBytesPerSecond": 3.5,
        "fileCount": None,
        "filesMoved": 0,
        "secondsLeft": (SIZE - 7) / 3.5,
        "currentFile": None,
        "notices": [],
        "legs": [],
    }
    assert found[-1].kind == "state"


async def until_told(world: World, transfer_id: str, is_it: Callable[[Any], bool]) -> None:
    """The watching process has seen it; a stream tells what it sees in the same turn of the loop."""
    watching = world.application.state.streams.watching  # type: ignore[attr-defined]

    def look() -> bool:
        watched = watching._watched.get(transfer_id)
        return watched is not None and watched.latest is not None and is_it(watched.latest.transfer)

    await until(look)
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def application_of_the_world(world: World, application: FastAPI) -> None:
    world.application = application  # type: ignore[attr-defined]


async def test_streams_are_for_the_owner_and_administrators(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, admin: httpx.AsyncClient, anonymous: httpx.AsyncClient, world: World
) -> None:
    body = await begun(alice)
    await cancel_transfer(world.tools, ALICE, body["transferId"])
    path = f"/transfers/{body['transferId']}/events"
    problem(await bob.get(path), 404, "transfer_not_found")
    problem(await anonymous.get(path), 401, "not_authenticated")
    problem(await alice.get("/transfers/none/events"), 404, "transfer_not_found")
    assert len(events((await admin.get(path)).text)) == 5


async def test_many_streams_of_many_transfers_are_one_query_an_interval_and_hold_no_connection(
    service: WebServer, application: FastAPI, issuer: Issuer, alice: httpx.AsyncClient, world: World, monkeypatch: Any
) -> None:
    ids = [(await begun(alice, path=f"{TARGET}{number}"))["transferId"] for number in range(3)]
    asked: list[list[str]] = []
    moments: list[float] = []
    changed_since = world.tools.transfers.changed_since

    async def counted(versions: dict[str, int]) -> Any:
        asked.append(sorted(versions))
        moments.append(asyncio.get_running_loop().time())
        return await changed_since(versions)

    monkeypatch.setattr(world.tools.transfers, "changed_since", counted)
    async with contextlib.AsyncExitStack() as stack:
        for name in ("alice", "dave", "erin"):
            token = issuer.token(preferred_username=name, roles=["stagecoach-admin"])
            client = await stack.enter_async_context(client_of(service, token))
            for transfer_id in ids:
                await stack.enter_async_context(client.stream("GET", f"/transfers/{transfer_id}/events"))
        await until(lambda: sum(streams(application).open.values()) == 9)
        for transfer_id in ids:
            await until_told(world, transfer_id, lambda told: told.state is State.RECEIVING)
        asked.clear()
        # The poller's own at most, while it asks.
        assert world.engine.pool.checkedout() <= 1
        await until(lambda: world.engine.pool.checkedout() == 0)
        await until(lambda: len(asked) >= 4)
        assert moments[-1] - moments[-4] >= 3 * 0.05 * 0.9  # each is a little late, by chance the first most
        assert all(look == sorted(ids) for look in asked)
    await until(lambda: not streams(application).open)


async def test_who_has_too_many_streams_open_is_told_so_and_may_open_another_when_one_is_closed(
    service: WebServer, application: FastAPI, issuer: Issuer, alice: httpx.AsyncClient
) -> None:
    path = f"/transfers/{(await begun(alice))['transferId']}/events"
    async with client_of(service, issuer.token()) as client, contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(client.stream("GET", path)) for _ in range(3)]
        refused = await client.get(path)
        assert problem(refused, 429, "too_many_requests")["data"] == {"limit": 3, "retry_after_seconds": 10}
        assert int(refused.headers["retry-after"]) > 0
        await opened[0].aclose()
        await until(lambda: streams(application).open["alice"] == 2)
        again = await stack.enter_async_context(client.stream("GET", path))
        assert again.status_code == 200
        assert "receiving" in await shown_until(again, "receiving")


async def test_a_silent_stream_has_a_heartbeat(service: WebServer, issuer: Issuer, alice: httpx.AsyncClient) -> None:
    path = f"/transfers/{(await begun(alice))['transferId']}/events"
    async with client_of(service, issuer.token()) as client, client.stream("GET", path) as answer:
        got = ""
        async with asyncio.timeout(SECONDS):
            async for piece in answer.aiter_text():
                got += piece
                if got.count(": ping\n\n") >= 3 and got.endswith(": ping\n\n"):
                    break
    assert [event.kind for event in events(got)] == ["story", "story", "state"]


async def test_the_streams_end_when_the_service_is_stopped(
    service: WebServer, application: FastAPI, issuer: Issuer, alice: httpx.AsyncClient
) -> None:
    path = f"/transfers/{(await begun(alice))['transferId']}/events"
    async with client_of(service, issuer.token()) as client, contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(client.stream("GET", path)) for _ in range(3)]
        await until(lambda: streams(application).open["alice"] == 3)
        service.should_exit = True
        async with asyncio.timeout(3):
            for answer in opened:
                text = "".join([piece async for piece in answer.aiter_text()])
                assert states(events(text), "state") == ["receiving"]
    assert not streams(application).open


async def test_a_stream_ends_with_its_token(service: WebServer, issuer: Issuer, alice: httpx.AsyncClient) -> None:
    path = f"/transfers/{(await begun(alice))['transferId']}/events"
    async with client_of(service, issuer.token()) as client, client.stream("GET", path) as answer:
        pieces = answer.aiter_text()
        assert await anext(pieces)
        issuer.time += 300 + 31
        async with asyncio.timeout(SECONDS):
            rest = [piece async for piece in pieces]
    assert "expired" not in "".join(rest)
    async with with_token(alice._transport.app, issuer.token()) as renewed:  # type: ignore[attr-defined]
        assert (await renewed.get("/transfers")).status_code == 200


async def test_a_database_that_is_away_for_a_while_ends_no_stream(
    service: WebServer, issuer: Issuer, alice: httpx.AsyncClient, world: World, monkeypatch: Any
) -> None:
    transfer_id = (await begun(alice))["transferId"]
    changed_since: Callable[..., Awaitable[Any]] = world.tools.transfers.changed_since
    away = [True] * 5

    async def sometimes(versions: dict[str, int]) -> Any:
        if away:
            away.pop()
            raise DatabaseUnavailable("The database does not answer; try again in a moment.")
        return await changed_since(versions)

    monkeypatch.setattr(world.tools.transfers, "changed_since", sometimes)
    async with (
        client_of(service, issuer.token()) as client,
        client.stream("GET", f"/transfers/{transfer_id}/events") as answer,
    ):
        assert "receiving" in await shown_until(answer, "event: state")
    assert not away
