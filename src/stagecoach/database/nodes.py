"""Data transfer nodes: never their secrets, only SHA-256 of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, not_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.errors import LimitReached, NameTaken
from stagecoach.core.nodes import CommandState, Node
from stagecoach.database.engine import Turn, reading, take_turn, writing
from stagecoach.database.node_tables import HAS_ENDED, IS_WITH_AGENT, node_commands, node_grants, nodes

_FIELDS = tuple(field.name for field in fields(Node))
_rows = nodes.c


class Nodes:
    """The table nodes behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, node: Node, enrolment_sha256: str, most: int) -> None:
        """Raises NameTaken; LimitReached: its owner has ``most`` that are not revoked."""
        values = {name: getattr(node, name) for name in _FIELDS} | {"health": list(node.health), "kinds": list(node.kinds)}
        try:
            async with writing(self._engine) as connection:
                await take_turn(connection, Turn.COUNT_NODES)
                mine = select(func.count()).select_from(nodes).where(_rows.owner == node.owner, _rows.revoked_at.is_(None))
                if (await connection.execute(mine)).scalar_one() >= most:
                    raise LimitReached(f"You have {most} nodes, which is the limit; revoke one first.", data={"limit": most})
                await connection.execute(insert(nodes).values(**values, enrolment_sha256=enrolment_sha256))
        except IntegrityError:
            raise _name_taken(node.name) from None

    async def get(self, node_id: str) -> Node | None:
        """By id, revoked ones too."""
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(nodes).where(_rows.id == node_id))).one_or_none()
        return None if row is None else node_of(row)

    async def find_by_credential(self, credential_sha256: str) -> Node | None:
        """Whose credential this is; never a revoked node."""
        wanted = (_rows.credential_sha256 == credential_sha256, _rows.revoked_at.is_(None))
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(nodes).where(*wanted))).one_or_none()
        return None if row is None else node_of(row)

    async def of_owner(self, owner: str) -> Sequence[Node]:
        """Newest first; without those that are revoked."""
        query = select(nodes).where(_rows.owner == owner, _rows.revoked_at.is_(None)).order_by(_rows.id.desc())
        async with reading(self._engine) as connection:
            return [node_of(row) for row in await connection.execute(query)]

    async def change(self, node_id: str, *, name: str | None, parallel: int | None) -> None:
        """What is not None. Raises NameTaken."""
        values = {key: value for key, value in (("name", name), ("parallel", parallel)) if value is not None}
        if not values:
            return
        try:
            async with writing(self._engine) as connection:
                await connection.execute(update(nodes).where(_rows.id == node_id).values(**values))
        except IntegrityError:
            raise _name_taken(name or "") from None

    async def renew_enrolment(self, node_id: str, enrolment_sha256: str, expires_at: datetime) -> None:
        """A new token; the credential holds until it is used."""
        async with writing(self._engine) as connection:
            await connection.execute(
                update(nodes)
                .where(_rows.id == node_id, _rows.revoked_at.is_(None))
                .values(enrolment_sha256=enrolment_sha256, enrolment_expires_at=expires_at, enrolment_used_at=None)
            )

    async def enrol(
        self,
        enrolment_sha256: str,
        instance_id: str,
        credential_sha256: str,
        *,
        version: str,
        platform: str,
        address: str | None,
        now: datetime,
    ) -> Node | None:
        """The node, which has this credential and no other from now on; None where the token does not hold.

        What another agent of it had is back in the queue.
        """
        async with writing(self._engine) as connection:
            query = select(nodes).where(_rows.enrolment_sha256 == enrolment_sha256).with_for_update()
            row = (await connection.execute(query)).one_or_none()
            if row is None or not node_of(row).may_enrol(instance_id, now):
                return None
            values = {
                "credential_sha256": credential_sha256,
                "enrolment_used_at": row.enrolment_used_at or now,
                "enrolled_at": now,
                "instance_id": instance_id,
                "other_instance_at": None,
                "name_told": row.name,
                "last_seen_at": now,
                "agent_version": version,
                "platform": platform,
                "address": address,
            }
            await connection.execute(update(nodes).where(_rows.id == row.id).values(**values))
            if row.instance_id != instance_id:
                lost = (node_commands.c.node_id == row.id, IS_WITH_AGENT)
                cancelled = {"state": CommandState.CANCELLED.value, "ended_at": now, "lease_until": None, "sealed": None}
                await connection.execute(update(node_commands).where(*lost, node_commands.c.cancel_asked).values(**cancelled))
                waiting = {"state": CommandState.PENDING.value, "lease_until": None, "started_at": None}
                await connection.execute(update(node_commands).where(*lost).values(**waiting))
            enrolled = (await connection.execute(select(nodes).where(_rows.id == row.id))).one()
        return node_of(enrolled)

    async def note_other_instance(self, node_id: str, now: datetime) -> None:
        """A second agent came with its credential."""
        async with writing(self._engine) as connection:
            await connection.execute(update(nodes).where(_rows.id == node_id).values(other_instance_at=now))

    async def revoke(self, node_id: str, now: datetime) -> None:
        """Its secrets hold no more, its commands are cancelled, its grants and invitations revoked: all of it at once."""
        async with writing(self._engine) as connection:
            await connection.execute(
                update(nodes)
                .where(_rows.id == node_id, _rows.revoked_at.is_(None))
                .values(revoked_at=now, credential_sha256=None, enrolment_sha256=None, enrolment_expires_at=None)
            )
            open_ones = (node_commands.c.node_id == node_id, not_(HAS_ENDED))
            cancelled = {
                "state": CommandState.CANCELLED.value,
                "cancel_asked": True,
                "ended_at": now,
                "lease_until": None,
                "sealed": None,
            }
            await connection.execute(update(node_commands).where(*open_ones).values(**cancelled))
            grants = (node_grants.c.node_id == node_id, node_grants.c.revoked_at.is_(None))
            await connection.execute(update(node_grants).where(*grants).values(revoked_at=now))


def node_of(row: Row[Any]) -> Node:
    """A node from its row."""
    values = {name: getattr(row, name) for name in _FIELDS}
    return Node(**values | {"health": tuple(row.health), "kinds": tuple(row.kinds or ())})


def _name_taken(name: str) -> NameTaken:
    return NameTaken(f"You have another node that is named {name!r}; choose another name.")
