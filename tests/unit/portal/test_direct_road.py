"""The direct road on the pages: which road, how fast at most, what was found of the way; and sends to a store by hand."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import World
from tests.unit.portal.conftest import Browser, with_token
from tests.unit.portal.test_nodes import path_of, register, token_of

from stagecoach.core.audit_log import AuditFilter
from stagecoach.core.nodes import CommandKind
from stagecoach.flows.record_act import audit_lines
from stagecoach.portal.network_words import way_between
from stagecoach.portal.rate_bars import MOST_BARS, rate_bars

ADDRESS = {"host": "vault.example.org", "port": 8443, "certificateSha256": "0" * 64}
SAYS = {"kinds": [kind.value for kind in CommandKind], "receiver": ADDRESS, "capacity": 8}
CHECK: dict[str, Any] = {
    "host": "vault.example.org",
    "port": 8443,
    "reachable": True,
    "dns_seconds": 0.004,
    "connect_seconds": [0.05, 0.06],
    "put_bytes_per_second": 20e6,
    "get_bytes_per_second": 5e6,
    "probeBytesPerSecond": 20e6,
    "verdicts": [{"code": "good", "level": "good", "words": "The way is <b>good</b>."}],
}
STORE = {
    "source": "run1/out.bin",
    "host": "s3.example.org",
    "port": "9000",
    "tls": "yes",
    "bucket": "data",
    "folder": "/in/",
    "access_key": "their-key",
    "secret_key": "their-very-secret",
}


@pytest.fixture
async def anonymous(application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The network that agents are on."""
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://stagecoach") as client:
        yield client


async def node(browser: Browser, anonymous: httpx.AsyncClient, world: World, name: str) -> NodeAgent:
    made = NodeAgent(anonymous, world.store.follow, f"instance00000{name:>4}".replace(" ", "0"))
    await made.enrol(token_of(await register(browser, name)))
    await made.poll(**SAYS)
    return made


@pytest.fixture
async def sender(alice: Browser, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    return await node(alice, anonymous, world, "lab")


@pytest.fixture
async def receiver(alice: Browser, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    return await node(alice, anonymous, world, "vault")


def ends(sender: NodeAgent, receiver: NodeAgent) -> dict[str, str]:
    return {
        "from": f"node:{sender.node_id}",
        "source": "out.bin",
        "to": f"node:{receiver.node_id}",
        "target": "in/out.bin",
    }


async def test_a_road_is_chosen_and_a_closed_one_is_explained(alice: Browser, sender: NodeAgent, receiver: NodeAgent) -> None:
    await alice.open("/portal/send")
    await alice.send("/portal/send", **ends(sender, receiver), road="direct", most="2.5 MB/s")
    assert "Straight from node to node" in alice.text
    transfer = (await alice.client.get("/portal/api/transfers", params={"limit": 1})).json()["transfers"][0]
    assert (transfer["wantedRoad"], transfer["rateLimitBytesPerSecond"]) == ("direct", 2_500_000)
    await alice.open("/portal/send")
    await alice.send("/portal/send", **ends(sender, receiver), road="staged")
    assert "It was asked for so." in alice.text
    await alice.open("/portal/send")
    to_this_computer = {**ends(sender, receiver), "to": "", "target": ""}
    await alice.send("/portal/send", 409, **to_this_computer, road="direct")
    assert "Only from one data transfer node to another there is a direct road" in alice.text
    assert '<option value="direct" selected>' in alice.page.text, "what was chosen is still chosen"


@pytest.mark.parametrize("most", ["many", "0", "1000", "-5 MB", "5 MB/h"])
async def test_a_rate_that_is_none_is_told(alice: Browser, sender: NodeAgent, receiver: NodeAgent, most: str) -> None:
    await alice.open("/portal/send")
    await alice.send("/portal/send", 422, **ends(sender, receiver), most=most)
    assert "Say how much in a second" in alice.text
    assert (await alice.client.get("/portal/api/transfers")).json()["transfers"] == []


async def test_what_was_found_of_the_way_and_how_fast_it_went_is_on_the_transfers_page(
    alice: Browser, sender: NodeAgent, receiver: NodeAgent, world: World
) -> None:
    await alice.open("/portal/send")
    await alice.send("/portal/send", **ends(sender, receiver))
    page = alice.page.url.path
    assert "lab will send the file straight to vault" in alice.text, "nodes are called as their owner calls them"
    assert "To the receiving node" not in alice.text
    (receive,) = (await receiver.poll(**SAYS))["commands"]
    await receiver.started(receive["id"])
    await world.work(2)
    (send,) = (await sender.poll(**SAYS))["commands"]
    await sender.started(send["id"])
    said = {"attempt": 1, "bytesDone": 40, "bytesTotal": 100, "rateBytesPerSecond": 20.0, "check": CHECK}
    assert (await sender.ask(f"commands/{send['id']}/progress", **said)).status_code == 200
    await alice.open(page)
    assert "To the receiving node vault.example.org:8443" in alice.text
    assert "The way is <b>good</b>." in alice.text
    assert "Connection, the slowest of 2 60.0" in alice.text
    assert "One stream to it 20.0 MB/s, one stream back 5.00 MB/s." in alice.text
    assert "How fast it went" not in alice.text, "while it goes, its chart is drawn live"
    rates = [[0, 0], [10, 1_000_000], [20, 4_000_000]]
    result = {"sizeBytes": 4_000_000, "files": 1, "verified": True, "check": CHECK, "rates": rates}
    assert (await sender.ended(send["id"], result=result)).status_code == 204
    await world.work(2)
    now = await alice.client.get(f"{page}/now", headers={"HX-Request": "true"})
    for text in (now.text, (await alice.open(page)).text):
        assert "200 kB/s on average in 20 seconds, 300 kB/s at most." in text
        assert '<rect x="0.0" y="67" width="50.0" height="33">' in text
        assert '<rect x="50.0" y="0" width="50.0" height="100">' in text


@pytest.mark.parametrize(
    "samples",
    [
        None,
        5,
        [],
        [[0, 1]],
        [[0, 0], [0, 5]],
        ["ab", [1], [None, 2], [True, 1], [float("nan"), 1], [-1, 4]],
        [[0, 0], [1e300, 5]],
    ],
)
def test_samples_that_make_no_line_are_no_bars(samples: object) -> None:
    assert rate_bars(samples) is None


@pytest.mark.parametrize("name", ["put_bytes_per_second", "connect_seconds"])
@pytest.mark.parametrize("number", [-(10**400), 10**400, float("nan"), True])
def test_any_number_of_a_report_makes_a_page(name: str, number: float) -> None:
    assert way_between({**CHECK, name: number}) is not None


@pytest.mark.parametrize(
    "result", [{}, {"sizeBytes": "abc"}, {"sizeBytes": [1]}, {"sizeBytes": 10**400, "verified": 1}, {"sizeBytes": True}]
)
async def test_whatever_an_agent_says_of_what_it_sent_to_a_store_its_nodes_page_is_there(
    alice: Browser, sender: NodeAgent, world: World, result: dict[str, object]
) -> None:
    await alice.open(path_of(sender, "/store"))
    await alice.send(path_of(sender, "/store"), **STORE)
    (send,) = (await sender.poll(**SAYS))["commands"]
    await sender.started(send["id"])
    assert (await sender.ended(send["id"], result=result)).status_code == 204
    await alice.open(path_of(sender))
    assert "not compared" in alice.text


async def test_rates_that_are_none_are_left_out_and_the_page_is_there(
    alice: Browser, sender: NodeAgent, receiver: NodeAgent, world: World
) -> None:
    await alice.open("/portal/send")
    await alice.send("/portal/send", **ends(sender, receiver))
    page = alice.page.url.path
    (receive,) = (await receiver.poll(**SAYS))["commands"]
    await receiver.started(receive["id"])
    await world.work(2)
    (send,) = (await sender.poll(**SAYS))["commands"]
    await sender.started(send["id"])
    rates = [[0, 0], [1, 10**400], [True, 5], [10, 1000]]
    result = {"sizeBytes": 1000, "files": 1, "verified": True, "check": CHECK, "rates": rates}
    assert (await sender.ended(send["id"], result=result)).status_code == 204
    await world.work(2)
    await alice.open(page)
    assert "100 B/s on average in 10 seconds" in alice.text


def test_many_samples_are_few_bars_that_cover_all_the_time() -> None:
    bars = rate_bars([[second, 7 * second] for second in range(240)])
    assert bars is not None
    assert 30 < len(bars.bars) <= MOST_BARS
    assert bars.bars[0].left == 0
    assert bars.bars[-1].left + bars.bars[-1].width == pytest.approx(100, abs=0.1)
    assert {bar.height for bar in bars.bars} == {100}
    assert (bars.mean_bytes_per_second, bars.seconds) == (7, 239)


def test_bytes_that_were_sent_twice_count_once() -> None:
    bars = rate_bars([[0, 0], [1, 100], [2, 40], [3, 110]])
    assert bars is not None
    assert [bar.height for bar in bars.bars] == [100, 0, 10]


def test_a_way_of_another_shape_has_no_speeds() -> None:
    way = way_between({"put_bytes_per_second": "fast", "get_bytes_per_second": -1, "verdicts": 5})
    assert (way.speeds, way.bars, way.verdicts) == ((), (), ())
    assert way_between(None).bars == ()


async def test_a_send_to_a_store_is_in_the_queue_and_its_key_on_no_page(alice: Browser, sender: NodeAgent, world: World) -> None:
    await alice.open(path_of(sender, "/store"))
    (secret,) = re.findall(r'<input id="store-secret_key"[^>]*>', alice.page.text)
    assert 'autocomplete="new-password"' in secret
    assert 'type="password"' in secret
    await alice.send(path_of(sender, "/store"), **STORE, certificate="AB:" * 31 + "AB", most="1 MB")
    assert "out.bin" in alice.text
    assert "Sends to a store" in alice.text
    (command,) = (await sender.poll(**SAYS))["commands"]
    assert command["secret"] == {"accessKeyId": "their-key", "secretAccessKey": "their-very-secret"}
    spec = command["spec"]
    assert (spec["sourcePath"], spec["fileName"], spec["folder"]) == ("/run1/out.bin", "out.bin", "in")
    assert (spec["endpoint"]["certificateSha256"], spec["rateLimitBytesPerSecond"]) == ("ab" * 32, 1_000_000)
    await sender.started(command["id"])
    await sender.ask(f"commands/{command['id']}/progress", attempt=1, bytesDone=4, bytesTotal=10)
    await alice.open(path_of(sender))
    assert 'value="40" aria-label="Progress of out.bin"' in alice.page.text
    await sender.ended(command["id"], result={"sizeBytes": 10, "files": 1, "verified": True})
    await alice.open(path_of(sender))
    assert "Sends to a store, 10 B, compared" in alice.text
    acts = [line async for line in audit_lines(world.tools, AuditFilter())]
    assert any(line.what == "node.send" for line in acts), {line.what for line in acts}
    assert "very-secret" not in str(acts) + alice.page.text


async def test_a_store_is_believed_by_the_authority_that_is_given(alice: Browser, sender: NodeAgent) -> None:
    await alice.open(path_of(sender, "/store"))
    authority = "-----BEGIN CERTIFICATE-----\r\nMIIB\r\n-----END CERTIFICATE-----"
    await alice.send(path_of(sender, "/store"), **STORE, authority=f"\r\n{authority}\r\n")
    (command,) = (await sender.poll(**SAYS))["commands"]
    assert (command["spec"]["endpoint"]["caPem"], command["spec"]["endpoint"]["certificateSha256"]) == (authority, None)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("port", "70000", "The port is a number"),
        ("port", "0001" + "9" * 5000, "The port is a number"),
        ("host", "<b>x", "Look at this again: Address."),
        ("bucket", "no/bucket", "Look at this again: Bucket."),
        ("authority", "MIIB", "begins with -----BEGIN CERTIFICATE-----"),
        ("authority", "-----BEGIN CERTIFICATE-----\u00e9", "Look at this again: Certificate of the authority."),
        ("certificate", "12", "Look at this again: SHA-256 of its certificate."),
        ("access_key", "", "Look at this again: Access key."),
        ("secret_key", "x" * 300, "Look at this again: Secret key."),
        ("source", "", "Look at this again: Path there"),
        ("source", "../etc", "path"),
        ("most", "fast", "Say how much in a second"),
    ],
)
async def test_what_a_store_cannot_be_is_told_and_all_but_the_secret_is_kept(
    alice: Browser, sender: NodeAgent, field: str, value: str, words: str
) -> None:
    await alice.open(path_of(sender, "/store"))
    form = {**STORE, "secret_key": "their-very-secret", field: value}
    page = path_of(sender, "/store")
    answer = await alice.client.post(page, data={**form, "csrf": alice.csrf}, headers={"Origin": "http://stagecoach"})
    assert answer.status_code in {400, 422}
    alice.page = answer
    assert words in alice.text
    assert 'role="alert"' in answer.text
    assert "very-secret" not in answer.text
    if field != "bucket":
        assert 'name="bucket" value="data"' in answer.text
    assert (await sender.poll(**SAYS))["commands"] == []


async def test_nobody_else_sends_from_it(bob: Browser, sender: NodeAgent) -> None:
    await bob.open(path_of(sender, "/store"), 404)


async def test_who_may_only_look_has_no_form(application: FastAPI, alice: Browser, sender: NodeAgent) -> None:
    await alice.open("/portal/tokens")
    await alice.send("/portal/tokens", 201, name="looks", days="3", **{"scope-nodes:read": "yes", "scope-transfers:read": "yes"})
    token = re.search(r"sct_[A-Za-z0-9_-]+", alice.page.text)
    assert token
    limited = await with_token(application, token[0])
    await limited.open(path_of(sender, "/store"))
    assert "a token that may look at nodes" in limited.text
    assert "<fieldset" not in limited.page.text
