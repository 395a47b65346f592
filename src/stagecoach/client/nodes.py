"""Data transfer nodes, as a client asks for them: one's own, their queues, and who may send to whose."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from stagecoach.client.asking import Asking
from stagecoach.client.errors import ServiceError
from stagecoach.client.node_sends import NodeSendQuestions
from stagecoach.core.names import is_transfer_id
from stagecoach.core.nodes import SYSTEM_PREFIX
from stagecoach.wire.nodes import (
    CommandPage,
    CommandView,
    GrantList,
    GrantView,
    HeldGrantList,
    HeldGrantView,
    InvitationAnswer,
    NodeList,
    NodeView,
    RegisteredNodeAnswer,
)

CHECK_WAIT_SECONDS = 300.0
CHECK_LOOK_SECONDS = 1.0


class NodeQuestions(NodeSendQuestions):
    """Every method raises ServiceError for a problem that the service answers. What makes a secret is asked once."""

    _asking: Asking

    async def nodes(self) -> NodeList:
        """One's own, newest first, without revoked ones."""
        return NodeList.model_validate(await self._asking.ask("GET", "/nodes"))

    async def node(self, node_id: str) -> NodeView:
        """One's own, or one that one was granted to send to."""
        return NodeView.model_validate(await self._asking.ask("GET", _route(node_id)))

    async def find_node(self, name_or_id: str) -> NodeView:
        """By its id; else by its name: one's own goes before those that one was granted to send to.

        Raises ServiceError: ``node_not_found``; ``node_ambiguous``: several owners have granted one of this name.
        """
        if is_transfer_id(name_or_id):
            return await self.node(name_or_id)
        for node in (await self.nodes()).nodes:
            if node.name == name_or_id:
                return node
        held = (await self.held_grants()).grants
        owners = {grant.node_id: grant.node_owner for grant in held if grant.node_name == name_or_id}
        if not owners:
            raise ServiceError(404, "node_not_found", f"There is no node named {name_or_id!r} that you may use.")
        if len(owners) > 1:
            known = ", ".join(f"{node_id} ({owner})" for node_id, owner in sorted(owners.items()))
            message = f"Several nodes that you may send to are named {name_or_id!r}; use the id of one: {known}."
            raise ServiceError(409, "node_ambiguous", message)
        return await self.node(next(iter(owners)))

    async def find_system(self, system: str) -> str:
        """The name that transfers take: of ``node:NAME`` or ``node:ID`` that of the node, any other as it is."""
        if not system.startswith(SYSTEM_PREFIX):
            return system
        return (await self.find_node(system.removeprefix(SYSTEM_PREFIX))).system

    async def register_node(self, name: str) -> RegisteredNodeAnswer:
        """A new one, with the token that enrols its agent, which is shown only now."""
        return RegisteredNodeAnswer.model_validate(await self._asking.once("POST", "/nodes", json={"name": name}))

    async def renew_enrolment(self, node_id: str) -> RegisteredNodeAnswer:
        """Another token, shown only now; the node's credential holds until the token is used."""
        return RegisteredNodeAnswer.model_validate(await self._asking.once("POST", _route(node_id, "enrolment")))

    async def change_node(self, node_id: str, *, name: str | None = None, parallel: int | None = None) -> NodeView:
        """Its name, or how many commands it carries out at once; what is None stays."""
        change = {key: value for key, value in (("name", name), ("parallel", parallel)) if value is not None}
        return NodeView.model_validate(await self._asking.ask("PATCH", _route(node_id), json=change))

    async def revoke_node(self, node_id: str) -> None:
        """At once: its credential is dead, its queue cancelled, and nobody may send to it."""
        await self._asking.once("DELETE", _route(node_id))

    async def node_commands(
        self, node_id: str, *, states: Sequence[str] = (), limit: int = 50, after: str | None = None
    ) -> CommandPage:
        """The last of its queue first, then what has ended; ``after`` is ``next`` of the page before."""
        asked: dict[str, Any] = {"limit": limit, "state": list(states)}
        return CommandPage.model_validate(
            await self._asking.ask("GET", _route(node_id, "commands"), params=asked | ({"after": after} if after else {}))
        )

    async def node_command(self, node_id: str, command_id: str) -> CommandView:
        """One of a node's; ``result`` is what a network check found."""
        return CommandView.model_validate(await self._asking.ask("GET", _route(node_id, "commands", command_id)))

    async def check_network(self, node_id: str, *, wait_seconds: float = CHECK_WAIT_SECONDS) -> CommandView:
        """Have a node look at its ways to the service and the store; as the command stands when it has ended, or after
        ``wait_seconds``: a node that is away, or busy with what came before, is waited for no longer."""
        command = CommandView.model_validate(
            await self._asking.once("POST", _route(node_id, "commands"), json={"kind": "check_network"})
        )
        deadline = self._asking.clock.monotonic() + wait_seconds
        while command.ended_at is None and self._asking.clock.monotonic() < deadline:
            await self._asking.clock.sleep(CHECK_LOOK_SECONDS)
            command = await self.node_command(node_id, command.id)
        return command

    async def order_node_commands(self, node_id: str, command_ids: Sequence[str]) -> None:
        """Commands that wait take each other's places, so that they come in this order."""
        await self._asking.ask("PUT", _route(node_id, "order"), json={"ids": list(command_ids)})

    async def remove_node_command(self, node_id: str, command_id: str) -> None:
        """Cancelled, with its transfer if it is one's; one that has ended is only not listed any more."""
        await self._asking.once("DELETE", _route(node_id, "commands", command_id))

    async def grants(self, node_id: str) -> GrantList:
        """Who may send to a node of one's own, and open invitations; newest first."""
        return GrantList.model_validate(await self._asking.ask("GET", _route(node_id, "grants")))

    async def held_grants(self) -> HeldGrantList:
        """What one was granted oneself."""
        return HeldGrantList.model_validate(await self._asking.ask("GET", "/grants"))

    async def add_grant(
        self,
        node_id: str,
        user: str,
        *,
        folder: str = "/",
        max_bytes: int | None = None,
        expires_at: datetime | None = None,
        label: str | None = None,
    ) -> GrantView:
        """Allow somebody to send below ``folder`` of a node, so many bytes in all, until a date (with a zone)."""
        terms = _terms(folder, max_bytes, expires_at, label)
        return GrantView.model_validate(await self._asking.once("POST", _route(node_id, "grants"), json={"user": user, **terms}))

    async def revoke_grant(self, node_id: str, grant_id: str) -> None:
        """A grant, or an invitation; what was begun under it goes on."""
        await self._asking.once("DELETE", _route(node_id, "grants", grant_id))

    async def invite(
        self,
        node_id: str,
        *,
        folder: str = "/",
        max_bytes: int | None = None,
        expires_at: datetime | None = None,
        label: str | None = None,
    ) -> InvitationAnswer:
        """The same for whoever redeems it first; its token and link are shown only now."""
        terms = _terms(folder, max_bytes, expires_at, label)
        return InvitationAnswer.model_validate(await self._asking.once("POST", _route(node_id, "invitations"), json=terms))

    async def redeem_invitation(self, token: str) -> HeldGrantView:
        """Once; from now on one may send to the node."""
        return HeldGrantView.model_validate(await self._asking.once("POST", "/invitations/redeem", json={"token": token}))


def _route(node_id: str, *below: str) -> str:
    return "/".join(["/nodes", quote(node_id, safe=""), *(quote(part, safe="/") for part in below)])


def _terms(folder: str, max_bytes: int | None, expires_at: datetime | None, label: str | None) -> dict[str, Any]:
    until = expires_at.isoformat() if expires_at is not None else None
    return {"folder": folder, "maxBytes": max_bytes, "expiresAt": until, "label": label}
