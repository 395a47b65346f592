"""The pages of nodes: registered, shown, changed, revoked; what their queues let one do; the check of their network."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import World
from tests.unit.portal.conftest import Browser, with_token

from stagecoach.portal.network_words import MOST_SECONDS, ways_of
from stagecoach.portal.nodes import enrol_command

NODES = "/portal/nodes"
REPORT: dict[str, Any] = {
    "ways": {
        "service": {
            "host": "transfer.example",
            "port": 443,
            "reachable": True,
            "dns_seconds": 0.004,
            "connect_seconds": [0.01, 0.05],
            "round_trip_seconds": 0.02,
            "verdicts": [{"code": "good", "level": "good", "words": "The way is good."}],
        },
        "store": {
            "host": "s3.example",
            "port": 9000,
            "reachable": False,
            "connect_seconds": [],
            "verdicts": [{"code": "port_closed", "level": "failure", "words": "<b>Nothing</b> listens there."}],
        },
    }
}


@pytest.fixture
async def anonymous(application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The network that agents are on."""
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://stagecoach") as client:
        yield client


async def register(browser: Browser, name: str = "lab archive", **more: str) -> str:
    """By the form; the command that the page has."""
    await browser.open(NODES)
    await browser.send(NODES, 201, name=name, **more)
    found = re.search(r"<textarea[^>]*>(.*?)</textarea>", browser.page.text, re.DOTALL)
    assert found
    return html.unescape(found[1])


def token_of(command: str) -> str:
    found = re.search(r"sce_[A-Za-z0-9_-]+", command)
    assert found
    return found[0]


@pytest.fixture
async def agent(alice: Browser, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    """Of alice's node, which she registered in her browser."""
    made = NodeAgent(anonymous, world.store.follow)
    await made.enrol(token_of(await register(alice)))
    await made.poll()
    return made


def path_of(agent: NodeAgent, more: str = "") -> str:
    return f"{NODES}/{agent.node_id}{more}"


async def ask_for_checks(browser: Browser, agent: NodeAgent, count: int) -> list[str]:
    """The ids, first things first. The page has no button while one is in the queue, so the form is sent as it was."""
    await browser.open(path_of(agent))
    form = {"csrf": browser.csrf}
    for _ in range(count):
        assert (await browser.client.post(path_of(agent, "/checks"), data=form)).status_code == 200
    await browser.open(path_of(agent))
    return re.findall(r'data-command="([^"]+)"', browser.page.text)


async def test_every_page_says_something_where_there_is_nothing(alice: Browser) -> None:
    await alice.open(NODES)
    assert "No nodes yet" in alice.text
    for path in ("/portal/send", "/portal/invitation"):
        await alice.open(path)


async def test_the_command_is_shown_once_and_has_the_token_in_no_argument(alice: Browser) -> None:
    command = await register(alice, send="/data/it's mine", receive="/data/in")
    first, token, end = command.split("\n")
    assert first == (
        "stagecoach agent enrol --server http://stagecoach --token - --send '/data/it'\"'\"'s mine' --receive /data/in <<'END'"
    )
    assert (end, token[:4]) == ("END", "sce_")
    await alice.open(NODES)
    assert "lab archive" in alice.text
    assert "sce_" not in alice.page.text
    node = re.search(rf'href="({NODES}/[a-zA-Z0-9]+)"', alice.page.text)
    assert node
    await alice.open(node[1])
    assert "Waits for its agent" in alice.text
    assert "sce_" not in alice.page.text


def test_what_is_said_of_directories_is_one_word_of_a_shell() -> None:
    command = enrol_command("https://t.example", "sce_x", "$(touch x)", "a b\nEND\nrm -rf /")
    assert "--send '$(touch x)' --receive 'a b\nEND\nrm -rf /' <<'END'\nsce_x\nEND" in command


async def test_names_that_are_none_are_refused_in_words(alice: Browser, agent: NodeAgent) -> None:
    for name, status, words in (
        ("", 422, "Give the machine a name"),
        ("x" * 101, 400, "1 to 100 characters"),
        ("lab archive", 409, "name"),
    ):
        await alice.open(NODES)
        await alice.send(NODES, status, name=name)
        assert words in alice.text
        assert 'role="alert"' in alice.page.text


async def test_a_node_shows_how_it_is(alice: Browser, agent: NodeAgent) -> None:
    await agent.poll(health=["The <disk> is full."], freeBytes={"receive": 5 * 10**9})
    await alice.open(NODES)
    assert "lab archive The <disk> is full. Online just now 5.00 GB 1.2" in alice.text
    await alice.open(path_of(agent))
    assert "The <disk> is full." in alice.text
    assert "Linux x86_64" in alice.text
    for path in (f"{NODES}/rows", path_of(agent, "/now")):
        piece = await alice.client.get(path)
        assert piece.status_code == 200
        assert "<html" not in piece.text
        assert "Online" in piece.text


async def test_its_owner_renames_it_and_says_how_much_at_once(alice: Browser, agent: NodeAgent) -> None:
    await alice.open(path_of(agent, "/settings"))
    await alice.send(path_of(agent, "/settings"), name="new name", parallel="7")
    assert "The node is changed" in alice.text
    assert 'value="7"' in alice.page.text
    for parallel in ("0", "65", "many", "-1", "", "9" * 30, "0001" + "9" * 5000, "0001" + "٣"):
        await alice.send(path_of(agent, "/settings"), name="other", parallel=parallel)
        assert "from 1 to 64" in alice.text
    await alice.open(path_of(agent))
    assert "new name" in alice.text


async def test_another_token_is_made_for_another_machine(alice: Browser, agent: NodeAgent) -> None:
    await alice.open(path_of(agent, "/settings"))
    await alice.send(path_of(agent, "/enrolment"), 201)
    again = NodeAgent(agent._client, instance_id="instance00000002")
    assert (await again.enrol(token_of(alice.page.text)))["nodeId"] == agent.node_id
    assert (await agent.try_poll()).status_code == 401


async def test_it_is_revoked_by_who_types_its_name(alice: Browser, agent: NodeAgent) -> None:
    await alice.open(path_of(agent, "/settings"))
    await alice.send(path_of(agent, "/revoke"), name="lab")
    assert "Nothing was revoked" in alice.text
    assert (await agent.try_poll()).status_code == 200
    await alice.send(path_of(agent, "/revoke"), name="lab archive")
    assert "is revoked" in alice.text
    assert (await agent.try_poll()).status_code == 401
    await alice.open(path_of(agent), 404)


async def test_nobody_else_finds_it(alice: Browser, bob: Browser, agent: NodeAgent) -> None:
    for more in ("", "/now", "/settings", "/grants", "/upload"):
        await bob.open(path_of(agent, more), 404)
    await bob.open(NODES)
    form = {"csrf": bob.csrf, "name": "lab archive", "parallel": "2"}
    for more in ("/settings", "/revoke", "/enrolment", "/checks", "/order", "/grants", "/invitations"):
        answer = await bob.client.post(path_of(agent, more), data=form)
        assert answer.status_code in {200, 404}, more
        assert "There is no" in answer.text, more
    assert (await agent.try_poll()).status_code == 200
    await alice.open(path_of(agent))
    assert "Nothing waits" in alice.text


async def test_an_administrator_sees_and_revokes_it_and_nothing_more(admin: Browser, agent: NodeAgent) -> None:
    await admin.open(path_of(agent))
    assert "Queue" not in admin.text
    await admin.send(path_of(agent, "/revoke"), name="lab archive")
    assert "is revoked" in admin.text
    assert (await agent.try_poll()).status_code == 401


async def test_what_waits_is_put_in_another_order(alice: Browser, agent: NodeAgent) -> None:
    first, second, third = await ask_for_checks(alice, agent, 3)
    await alice.send(path_of(agent, f"/commands/{third}/up"))
    assert "It is now number 2 of the 3 that wait." in alice.text
    assert re.findall(r'data-command="([^"]+)"', alice.page.text) == [first, third, second]
    await alice.send(path_of(agent, f"/commands/{first}/down"))
    await alice.send(path_of(agent, f"/commands/{third}/up"))
    assert "It is the first that waits." in alice.text
    await alice.send(path_of(agent, f"/commands/{second}/down"))
    assert "It is the last of the queue." in alice.text
    await alice.send(path_of(agent, "/order"), ids=",".join([second, third, first]))
    assert "new order" in alice.text
    given = [(await agent.poll(capacity=1))["commands"][0]["id"]]
    await agent.ended(given[0])
    given += [(await agent.poll(capacity=1))["commands"][0]["id"]]
    assert given == [second, third]
    await alice.open(path_of(agent))
    answer = await alice.client.post(path_of(agent, f"/commands/{third}/up"), data={"csrf": alice.csrf})
    assert "does not wait any more" in answer.text


async def test_scripts_get_the_queue_as_it_is_with_what_was_done(alice: Browser, agent: NodeAgent) -> None:
    first, second = await ask_for_checks(alice, agent, 2)
    form, script = {"csrf": alice.csrf}, {"HX-Request": "true", "Sec-Fetch-Site": "same-origin"}
    answer = await alice.client.post(path_of(agent, f"/commands/{second}/up"), data=form, headers=script)
    assert (answer.status_code, len(answer.history)) == (200, 0)
    assert "<html" not in answer.text
    assert 'hx-swap-oob="innerHTML:#told"' in answer.text
    assert re.findall(r'data-command="([^"]+)"', answer.text) == [second, first]
    gone = await alice.client.post(path_of(agent, "/commands/01gone/remove"), data=form, headers=script)
    assert gone.status_code == 200
    assert 'class="notice bad"' in gone.text
    quiet = await alice.client.get(path_of(agent, "/now"))
    assert "hx-swap-oob" not in quiet.text


async def test_what_waits_is_cancelled_and_what_has_ended_taken_off_the_list(alice: Browser, agent: NodeAgent) -> None:
    (only,) = await ask_for_checks(alice, agent, 1)
    await alice.send(path_of(agent, f"/commands/{only}/remove"))
    assert "It is cancelled." in alice.text
    assert "Nothing waits" in alice.text
    await alice.send(path_of(agent, f"/commands/{only}/remove"))
    assert "taken off the list" in alice.text
    assert "Nothing yet." in alice.text


async def test_a_transfer_in_the_queue_leads_to_its_page_and_its_owner_alone_sees_its_name(
    alice: Browser, bob: Browser, agent: NodeAgent
) -> None:
    await alice.open(path_of(agent, "/grants"))
    await alice.send(path_of(agent, "/grants"), user="bob")
    ids = {}
    for browser in (alice, bob):
        await browser.open(path_of(agent, "/upload"))
        body = {"path": "/secret.bin", "transferDirectives": {"transferMethod": "s3", "fileSize": 5}}
        headers = {"X-CSRF-Token": browser.csrf, "Sec-Fetch-Site": "same-origin"}
        system = f"node%3A{agent.node_id}"
        begun = await browser.client.post(f"/portal/api/filesystem/{system}/transfer/upload", json=body, headers=headers)
        assert begun.status_code == 201, begun.text
        ids[browser is alice] = begun.json()["transferId"]
    await alice.open(path_of(agent))
    assert alice.page.text.count(">secret.bin</a>") == 1
    assert f"/portal/transfers/{ids[True]}" in alice.page.text
    assert ids[False] not in alice.page.text
    assert "by bob" in alice.text
    await bob.open(path_of(agent))
    assert "Queue" not in bob.text
    await bob.open("/portal/transfers")
    assert "Upload to lab archive (alice)" in bob.text
    await bob.open(f"/portal/transfers/{ids[False]}")
    assert "Staging area → lab archive (alice)" in bob.text
    (command,) = re.findall(r'data-command="([^"]+)"(?:(?!</li>).)*by bob', (await alice.open(path_of(agent))).text, re.DOTALL)[
        -1:
    ]
    await alice.send(path_of(agent, f"/commands/{command}/remove"))
    assert "with its transfer" in alice.text
    await bob.open(f"/portal/transfers/{ids[False]}")
    assert "Cancel the transfer" not in bob.text


async def test_what_a_check_found_is_in_words_and_in_bars(alice: Browser, agent: NodeAgent) -> None:
    (check,) = await ask_for_checks(alice, agent, 1)
    await alice.open(path_of(agent, f"/checks/{check}"))
    assert "Waiting" in alice.text
    piece = await alice.client.get(path_of(agent, f"/checks/{check}"), headers={"HX-Request": "true"})
    assert (piece.status_code, "<html" in piece.text) == (200, False)
    await agent.poll()
    await agent.started(check)
    await agent.ended(check, message="<b>Nothing</b> listens there.", result=REPORT)
    await alice.open(path_of(agent))
    assert "<b>Nothing</b> listens there. The way is good." in alice.text
    await alice.open(path_of(agent, f"/checks/{check}"))
    assert "Connection, the slowest of 2 50.0" in alice.text
    assert "Name looked up 4.0" in alice.text
    assert alice.page.text.count("<rect") == 3
    piece = await alice.client.get(path_of(agent, f"/checks/{check}"), headers={"HX-Request": "true"})
    assert piece.status_code == 286


@pytest.mark.parametrize(
    "result",
    [
        None,
        5,
        {"ways": 5},
        {"ways": {"service": 5, "store": {"verdicts": 7, "host": 5, "port": "x"}}},
        {"ways": {"service": {"dns_seconds": float("nan"), "connect_seconds": [None, "1", True, -1], "verdicts": [5, {}]}}},
        {"ways": {"service": {"verdicts": [{"level": "evil", "words": "x"}, {"level": "failure", "words": 5}]}}},
    ],
)
def test_a_report_of_another_shape_is_passed_over(result: object) -> None:
    assert all(not way.bars and not way.verdicts for way in ways_of(result))


def test_a_number_that_no_clock_has_is_cut_too() -> None:
    (way,) = ways_of({"ways": {"store": {"dns_seconds": 10**400, "connect_seconds": [float("inf")]}}})
    assert [bar.milliseconds for bar in way.bars] == [MOST_SECONDS * 1000] * len(way.bars)
    assert way.bars


def test_endless_measures_and_words_are_cut() -> None:
    verdict = {"level": "failure", "words": "x" * 10**5}
    (way,) = ways_of({"ways": {"store": {"dns_seconds": 1e300, "verdicts": [verdict]}}})
    assert (way.bars[0].milliseconds, way.bars[0].share, len(way.verdicts[0].words)) == (3_600_000, 100, 1000)


async def test_a_page_of_a_node_is_light(alice: Browser, agent: NodeAgent) -> None:
    """With all that it loads, nothing of it compressed."""
    for path in (NODES, path_of(agent)):
        answer = await alice.open(path)
        size = len(answer.content)
        for address in re.findall(r'(?:src|href)="(/portal/static/[^"]+)"', answer.text):
            asset = await alice.client.get(address)
            assert asset.status_code == 200, address
            size += len(asset.content)
        assert size <= 110 * 1024, (path, size)


async def test_tokens_for_nodes_are_offered(alice: Browser) -> None:
    await alice.open("/portal/tokens")
    assert "nodes:read" in alice.text
    assert "nodes:write" in alice.text


async def test_who_may_not_see_nodes_has_no_such_page(application: FastAPI, alice: Browser) -> None:
    await alice.open("/portal/tokens")
    await alice.send("/portal/tokens", 201, name="files only", days="3", **{"scope-transfers:read": "yes"})
    token = re.search(r"sct_[A-Za-z0-9_-]+", alice.page.text)
    assert token
    limited = await with_token(application, token[0])
    await limited.open("/portal/transfers")
    assert 'href="/portal/nodes"' not in limited.page.text
    await limited.open(NODES)
    assert "No nodes yet" in limited.text
    assert "Register a machine" not in limited.text
    await limited.client.aclose()
