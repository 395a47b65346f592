"""A client that sends slowly, or what is no HTTP, over real sockets to the real web server; and what browsers are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from tests.e2e.own_service import free_port
from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.conftest import Issuer

from stagecoach.api.app import create_app
from stagecoach.serving import WebServer
from stagecoach.settings import AuthSettings, ServerSettings

HEAD_SECONDS, BODY_SECONDS = 0.8, 1.6
UPLOAD = "/filesystem/alps/transfer/upload"


@pytest.fixture
def server_settings() -> ServerSettings:
    return ServerSettings(
        host="127.0.0.1",
        port=free_port(),
        head_timeout_seconds=HEAD_SECONDS,
        body_timeout_seconds=BODY_SECONDS,
        cors_origins=("https://portal.example.org",),
    )


@pytest.fixture
def bounded(application: FastAPI, server_settings: ServerSettings) -> FastAPI:
    """The application with the short timeouts."""

    def never() -> None:
        raise AssertionError("the world is open already")

    made = create_app(never, AuthSettings(), server_settings)  # type: ignore[arg-type]
    made.state.tools, made.state.tokens = application.state.tools, application.state.tokens
    return made


@pytest.fixture
async def listening(bounded: FastAPI, server_settings: ServerSettings) -> AsyncIterator[int]:
    """The port of the web server, which is the service's own."""
    server = WebServer(bounded, server_settings)
    server.config.lifespan = "off"
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), serving
        await asyncio.sleep(0.01)
    yield server_settings.port
    server.should_exit = True
    await serving


class Line:
    """A connection by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, text: str) -> None:
        self.writer.write(text.replace("\n", "\r\n").encode())
        await self.writer.drain()

    async def dribble(self, text: str) -> None:
        """A byte at a time, for as long as it is listened to."""
        try:
            for sign in text:
                await self.say(sign)
                await asyncio.sleep(HEAD_SECONDS / 10)
        except ConnectionError:
            pass

    async def all(self) -> bytes:
        """Whatever comes until the other side closes; it has to."""
        try:
            return await asyncio.wait_for(self.reader.read(), 20)
        except ConnectionError:
            return b""


@pytest.fixture
async def line(listening: int) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listening)
    yield Line(reader, writer)
    writer.close()


def parsed(answer: bytes) -> httpx.Response:
    """One answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = [tuple(each.split(": ", 1)) for each in rest]
    return httpx.Response(int(first.split()[1]), headers=headers, content=body)  # type: ignore[arg-type]


async def test_who_says_nothing_is_not_listened_to_for_ever(line: Line) -> None:
    assert await line.all() == b""


async def test_a_head_that_dribbles_in_is_cut_off(line: Line) -> None:
    dribbling = asyncio.create_task(line.dribble("GET /healthz HTTP/1.1\nX: " + "x" * 10_000))
    assert await line.all() == b""
    dribbling.cancel()


async def test_the_head_of_a_second_request_is_bounded_as_well(line: Line) -> None:
    await line.say("GET /healthz HTTP/1.1\nHost: x\n\n")
    assert await line.reader.readuntil(b"}")
    await line.say("GET /healthz HTTP/1.1\nHost:")
    dribbling = asyncio.create_task(line.dribble("x" * 10_000))
    assert await line.all() == b""
    dribbling.cancel()


async def test_a_body_that_dribbles_in_is_refused(line: Line, issuer: Issuer) -> None:
    head = f"POST {UPLOAD} HTTP/1.1\nHost: x\nAuthorization: Bearer {issuer.token()}\nContent-Type: application/json\n"
    await line.say(f"{head}Content-Length: 10000\n\n")
    dribbling = asyncio.create_task(line.dribble(" " * 10_000))
    answer = parsed(await line.all())
    problem(answer, 408, "body_too_slow")
    assert answer.headers["connection"] == "close"
    dribbling.cancel()


async def test_a_body_that_nobody_reads_does_not_keep_the_connection(line: Line) -> None:
    await line.say(f"POST {UPLOAD} HTTP/1.1\nHost: x\nContent-Length: 10000\n\n")
    dribbling = asyncio.create_task(line.dribble(" " * 10_000))
    problem(parsed(await line.all()), 401, "not_authenticated")
    dribbling.cancel()


@pytest.mark.parametrize("has_token", [True, False])
async def test_a_request_with_two_lengths_carries_no_other_behind_it(line: Line, issuer: Issuer, has_token: bool) -> None:
    """A proxy that reads one of them and a server that reads the other disagree about where the next request begins."""
    token = f"Authorization: Bearer {issuer.token()}\n"
    head = f"POST {UPLOAD} HTTP/1.1\nHost: x\n{token if has_token else ''}"
    await line.say(f"{head}Content-Length: 4\nTransfer-Encoding: chunked\n\n0\n\nGET /accounts/me HTTP/1.1\nHost: x\n{token}\n")
    answer = parsed(await line.all())
    problem(answer, 400, "body_ambiguous")
    assert answer.headers["connection"] == "close"
    assert "alice" not in answer.text


async def test_a_body_that_comes_in_pieces_in_time_is_read(line: Line, issuer: Issuer, world: World) -> None:
    body = json.dumps({"path": "/home/alice/x", "fileSize": 1})
    head = f"POST {UPLOAD} HTTP/1.1\nHost: x\nAuthorization: Bearer {issuer.token()}\nContent-Type: application/json\n"
    await line.say(f"{head}Connection: close\nContent-Length: {len(body)}\n\n{body[:10]}")
    await asyncio.sleep(BODY_SECONDS / 4)
    await line.say(body[10:])
    assert parsed(await line.all()).status_code == 201


async def test_a_stream_lives_longer_than_any_of_this(listening: int, issuer: Issuer, world: World) -> None:
    headers = {"Authorization": f"Bearer {issuer.token()}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening}", headers=headers) as alice:
        begun = (await alice.post(UPLOAD, json={"path": "/home/alice/x", "fileSize": 1})).json()
        async with alice.stream("GET", f"/transfers/{begun['transferId']}/events") as stream:
            await asyncio.sleep(2 * BODY_SECONDS)
            assert (await alice.delete(f"/transfers/{begun['transferId']}")).status_code == 200
            assert "cancelled" in "".join([text async for text in stream.aiter_text()])


@pytest.mark.parametrize("sent", ["HELLO\n\n", "GET / HTTP/1.1\n bad\n\n", "GET / HTTP/one\n\n", "\x00\x01\x02\n\n"])
async def test_what_is_no_http_gets_the_one_body_as_well(line: Line, sent: str) -> None:
    await line.say(sent)
    answer = parsed(await line.all())
    assert answer.status_code == 400
    assert (answer.json()["code"], answer.json()["errorType"]) == ("not_http", "validation")


async def test_every_answer_tells_browsers_to_be_careful(alice: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    for client, path in ((alice, "/transfers"), (anonymous, "/transfers"), (anonymous, "/docs"), (alice, "/nowhere")):
        answer = await client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    secure = await anonymous.get("https://stagecoach/healthz")
    assert secure.headers["strict-transport-security"] == "max-age=31536000"


async def test_an_unforeseen_failure_has_these_headers_too(alice: httpx.AsyncClient, world: World) -> None:
    async def broken(*arguments: object) -> None:
        raise RuntimeError

    world.tools.transfers.page = broken  # type: ignore[method-assign, assignment]
    answer = await alice.get("/transfers", headers={"X-Request-Id": "r-1"})
    problem(answer, 500, "internal_error")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (answer.headers["cache-control"], answer.headers["x-request-id"]) == ("no-store", "r-1")


async def test_only_pages_of_the_named_origins_may_call(bounded: FastAPI, issuer: Issuer, alice: httpx.AsyncClient) -> None:
    transport = httpx.ASGITransport(bounded)
    ask = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    async with httpx.AsyncClient(transport=transport, base_url="http://stagecoach") as page:
        for origin, is_allowed in (("https://portal.example.org", True), ("https://portal.example.org.evil.example", False)):
            asked = await page.options("/transfers", headers={"Origin": origin, **ask})
            assert asked.is_success is is_allowed
            if not is_allowed:
                problem(asked, 400, "origin_refused")
            token = {"Authorization": f"Bearer {issuer.token()}"}
            for headers in (token, {}):
                answer = await page.get("/transfers", headers={"Origin": origin, **headers})
                assert answer.headers.get("access-control-allow-origin") == (origin if is_allowed else None)
                assert "access-control-allow-credentials" not in answer.headers
    answer = await alice.options("/transfers", headers={"Origin": "https://portal.example.org", **ask})
    problem(answer, 405, "method_not_allowed")


async def test_an_agent_waits_longer_than_any_head_or_body_may_take(
    listening: int, world: World, alice: httpx.AsyncClient
) -> None:
    token = (await alice.post("/nodes", json={"name": "archive"})).json()["enrolmentToken"]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening}", timeout=30) as client:
        agent = NodeAgent(client)
        await agent.enrol(token)
        begun = asyncio.get_running_loop().time()
        assert (await agent.poll(wait_seconds=4))["commands"] == []
        assert asyncio.get_running_loop().time() - begun > 2 * BODY_SECONDS
        asking = asyncio.create_task(agent.poll(wait_seconds=30))
        await asyncio.sleep(2 * HEAD_SECONDS)
        node = (await alice.get("/nodes")).json()["nodes"][0]
        await alice.post(f"/nodes/{node['id']}/commands", json={"kind": "check_network"})
        assert len((await asyncio.wait_for(asking, 5))["commands"]) == 1


async def test_a_server_that_stops_answers_the_agents_that_wait(
    bounded: FastAPI, server_settings: ServerSettings, alice: httpx.AsyncClient
) -> None:
    server = WebServer(bounded, server_settings)
    server.config.lifespan = "off"
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    token = (await alice.post("/nodes", json={"name": "archive"})).json()["enrolmentToken"]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server_settings.port}", timeout=30) as client:
        agent = NodeAgent(client)
        await agent.enrol(token)
        asking = asyncio.create_task(agent.poll(wait_seconds=30))
        await asyncio.sleep(0.3)
        server.should_exit = True
        assert (await asyncio.wait_for(asking, 5))["commands"] == []
        await asyncio.wait_for(serving, 10)
