"""Letting others send: grants and invitations on the pages, and what who holds one sees and does."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.node_agent import NodeAgent
from tests.fakes.world import World
from tests.unit.portal.conftest import URL, Browser
from tests.unit.portal.test_nodes import path_of, register, token_of

INVITATION = "/portal/invitation"


@pytest.fixture
async def anonymous(application: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The network that agents are on."""
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://stagecoach") as client:
        yield client


@pytest.fixture
async def agent(alice: Browser, anonymous: httpx.AsyncClient, world: World) -> NodeAgent:
    """Of alice's node."""
    made = NodeAgent(anonymous, world.store.follow)
    await made.enrol(token_of(await register(alice)))
    await made.poll()
    return made


async def invited(browser: Browser, agent: NodeAgent, **terms: str) -> str:
    """The link."""
    await browser.open(path_of(agent, "/grants"))
    await browser.send(path_of(agent, "/invitations"), 201, **terms)
    found = re.search(r'<input id="secret"[^>]*value="([^"]+)"', browser.page.text)
    assert found
    return html.unescape(found[1])


async def test_a_user_is_granted_sees_it_and_loses_it(alice: Browser, bob: Browser, agent: NodeAgent) -> None:
    grants = path_of(agent, "/grants")
    await alice.open(grants)
    assert "Nobody but you" in alice.text
    terms = {"folder": "from-bob/", "most": "1.5 TB", "until": "2030-12-31", "label": "the campaign"}
    await alice.send(grants, user="bob", **terms)
    assert "bob may send to this node now." in alice.text
    assert "bob the campaign /from-bob 0 B of 1.50 TB 31 Dec 2030, 23:59 UTC" in alice.text
    await bob.open("/portal/nodes")
    assert "lab archive of alice" in bob.text
    await bob.open(path_of(agent))
    assert "Owner alice" in bob.text
    await bob.open(path_of(agent, "/upload"))
    assert 'id="folder" name="path" value="/from-bob"' in bob.page.text
    (revoke,) = re.findall(rf'action="({grants}/[^"]+/revoke)"', alice.page.text)
    await alice.send(revoke)
    assert "It is revoked" in alice.text
    await bob.open(path_of(agent), 404)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"user": ""}, "Say who may send."),
        ({"user": "bob", "most": "much"}, "This is no size"),
        ({"user": "bob", "most": "0"}, "This is no size"),
        ({"user": "bob", "until": "tomorrow"}, "This is no day"),
        ({"user": "bob", "until": "2020-01-01"}, ""),
        ({"user": "bob", "folder": "../up"}, ""),
    ],
)
async def test_what_is_no_grant_is_refused_and_the_form_keeps_what_was_said(
    alice: Browser, agent: NodeAgent, terms: dict[str, str], words: str
) -> None:
    grants = path_of(agent, "/grants")
    await alice.open(grants)
    form = {"csrf": alice.csrf, "label": "kept <words>", **terms}
    answer = await alice.client.post(grants, data=form)
    assert answer.status_code in {400, 422}, answer.text
    assert words in answer.text
    assert 'role="alert"' in answer.text
    assert 'value="kept &lt;words&gt;"' in answer.text
    await alice.open(grants)
    assert "Nobody but you" in alice.text


async def test_an_invitation_is_shown_once_and_redeemed_once(
    alice: Browser, bob: Browser, admin: Browser, agent: NodeAgent
) -> None:
    link = await invited(alice, agent, folder="/drop", label="for Dora")
    assert re.fullmatch(rf"{URL}/invitation#sci_[A-Za-z0-9_-]+", link)
    await alice.open(path_of(agent, "/grants"))
    assert "nobody has redeemed it" in alice.text
    assert "sci_" not in alice.page.text
    # As browsers do it: what is behind the '#' does not come along.
    followed = await bob.client.get("/invitation")
    assert followed.url.path == INVITATION
    await bob.open(INVITATION)
    # The whole link, as people paste it.
    await bob.send(INVITATION, token=f" {link} ")
    assert "You may send to “lab archive” of alice now." in bob.text
    assert 'id="folder" name="path" value="/drop"' in bob.page.text
    await admin.open(INVITATION)
    await admin.send(INVITATION, 404, token=link)
    assert 'role="alert"' in admin.page.text
    await alice.open(path_of(agent, "/grants"))
    assert "bob" in alice.text


async def test_strangers_sign_in_first(stranger: Browser) -> None:
    await stranger.open(INVITATION)
    assert "/portal/sign-in?next=/portal/invitation" in stranger.page.text
    assert "invitation-form" not in stranger.page.text


async def test_what_is_no_invitation_is_refused(bob: Browser) -> None:
    for token in ("", "sci_", "hello", "scn_" + "a" * 43):
        await bob.open(INVITATION)
        await bob.send(INVITATION, 422, token=token)
        assert "This is no invitation" in bob.text


async def test_a_file_of_ones_node_is_sent_to_a_system_and_fetched_by_a_link(
    world: World, alice: Browser, agent: NodeAgent
) -> None:
    agent.send["/run1/data.bin"] = b"measured" * 1000
    system = f"node:{agent.node_id}"
    await alice.open(f"/portal/send?from={system}")
    assert f'value="{system}" selected' in alice.page.text
    await alice.send(
        "/portal/send", **{"from": system, "source": "run1/data.bin", "to": "alps", "target": "/home/alice/data.bin"}
    )
    assert alice.page.url.path.startswith("/portal/transfers/")
    assert "Transfer" in alice.text
    assert "lab archive → staging area" in alice.text
    assert "Staging area → alps" in alice.text
    assert "Coming from its source" in alice.text
    for _ in range(3):
        await agent.work()
        await world.work(3)
    await alice.open(alice.page.url.path)
    assert "Waiting for the system" in alice.text or "Moving" in alice.text
    await alice.open("/portal/transfers")
    assert "Transfer from lab archive to alps" in alice.text

    await alice.open("/portal/send")
    await alice.send("/portal/send", **{"from": system, "source": "/run1/data.bin", "to": "", "target": ""})
    assert "lab archive → staging area" in alice.text
    for _ in range(3):
        await agent.work()
        await world.work(3)
    await alice.open(alice.page.url.path)
    assert "Fetch the file" in alice.text


async def test_what_cannot_be_sent_is_told_and_the_form_keeps_it(alice: Browser, agent: NodeAgent) -> None:
    system = f"node:{agent.node_id}"
    for wanted, words in (
        ({"from": "alps", "source": "", "to": system, "target": "/x"}, "Say where it is"),
        ({"from": "alps", "source": "/home/alice/none", "to": system, "target": ""}, "Say the path at which"),
        ({"from": "alps", "source": "/etc/shadow", "to": system, "target": "/x"}, ""),
        ({"from": "node:01gone", "source": "/x", "to": "alps", "target": "/home/alice/x"}, ""),
    ):
        await alice.open("/portal/send")
        answer = await alice.client.post("/portal/send", data={"csrf": alice.csrf, **wanted})
        assert 400 <= answer.status_code < 500
        assert words in answer.text
        assert 'role="alert"' in answer.text
        assert f'value="{wanted["source"]}"' in answer.text
