"""The client's questions about nodes before the real API: what one asks, the other answers."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import httpx
import pytest
from fastapi import FastAPI
from tests.unit.api.conftest import Issuer

from stagecoach.client import Client, ServiceError
from stagecoach.client.nodes import NodeQuestions
from stagecoach.client.sync import Client as SyncClient


def client_of(application: FastAPI, issuer: Issuer, user: str) -> Client:
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    return Client("http://stagecoach", issuer.token(preferred_username=user), transport=transport)


async def test_nodes_and_their_queue(application: FastAPI, issuer: Issuer) -> None:
    async with client_of(application, issuer, "alice") as alice:
        made = await alice.register_node("archive")
        assert made.enrolment_token.startswith("sce_")
        assert (await alice.renew_enrolment(made.id)).enrolment_token != made.enrolment_token
        assert [node.id for node in (await alice.nodes()).nodes] == [made.id]
        changed = await alice.change_node(made.id, name="the vault", parallel=3)
        assert (changed.name, changed.parallel) == ("the vault", 3)
        assert (await alice.find_node("the vault")).id == made.id
        assert await alice.find_system("node:the vault") == f"node:{made.id}"
        assert await alice.find_system("alps") == "alps"
        assert (await alice.node_commands(made.id, states=["pending", "held"])).commands == []
        await alice.revoke_node(made.id)
        with pytest.raises(ServiceError) as refused:
            await alice.node(made.id)
        assert (refused.value.status, refused.value.code) == (404, "node_not_found")


async def test_grants_and_invitations(application: FastAPI, issuer: Issuer) -> None:
    until = datetime(2031, 1, 1, tzinfo=UTC)
    async with client_of(application, issuer, "alice") as alice, client_of(application, issuer, "bob") as bob:
        node = await alice.register_node("archive")
        with pytest.raises(ServiceError):
            await bob.find_node("archive")
        given = await alice.add_grant(node.id, "bob", folder="/from bob", max_bytes=10**12, expires_at=until, label="a note")
        assert (given.user, given.folder, given.max_bytes, given.expires_at) == ("bob", "/from bob", 10**12, until)
        assert (await bob.find_node("archive")).id == node.id
        invited = await alice.invite(node.id, folder="/guests")
        assert invited.url.endswith(f"#{invited.token}")
        held = await bob.redeem_invitation(invited.token)
        assert (held.node_name, held.folder) == ("archive", "/guests")
        assert {grant.folder for grant in (await bob.held_grants()).grants} == {"/from bob", "/guests"}
        for grant in (await alice.grants(node.id)).grants:
            await alice.revoke_grant(node.id, grant.id)
        with pytest.raises(ServiceError):
            await bob.find_node("archive")


def test_the_synchronous_client_asks_all_that_the_other_asks() -> None:
    """With the same arguments."""
    names = [name for name in vars(NodeQuestions) if not name.startswith("_")]
    assert len(names) > 10
    for name in names:
        asked, waited = (inspect.signature(getattr(kind, name)) for kind in (NodeQuestions, SyncClient))
        assert asked == waited, name
