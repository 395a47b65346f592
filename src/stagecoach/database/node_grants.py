"""The rights to send to nodes, and the invitations that become such: of a link never the secret, only its SHA-256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagecoach.core.errors import LimitReached
from stagecoach.core.nodes import Grant, GrantUse, HeldGrant, node_not_found
from stagecoach.database.engine import reading, writing
from stagecoach.database.node_commands import locked_node
from stagecoach.database.node_tables import node_grants, nodes

_FIELDS = tuple(field.name for field in fields(Grant))
_rows = node_grants.c
MOST_BYTES = 2**63 - 1


class NodeGrants:
    """The table node_grants behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, grant: Grant, invitation_sha256: str | None, most: int) -> None:
        """Raises NodeNotFound: the node is revoked. LimitReached: it has ``most`` that hold or may be redeemed."""
        values = {name: getattr(grant, name) for name in _FIELDS}
        async with writing(self._engine) as connection:
            node = await locked_node(connection, grant.node_id)
            if node is None or node.revoked_at is not None:
                raise node_not_found()
            count = select(func.count()).select_from(node_grants)
            count = count.where(_rows.node_id == grant.node_id, _is_open(grant.created_at))
            if (await connection.execute(count)).scalar_one() >= most:
                raise LimitReached(f"The node has {most} grants, which is the limit; revoke one first.", data={"limit": most})
            await connection.execute(insert(node_grants).values(**values, invitation_sha256=invitation_sha256))

    async def of_node(self, node_id: str, now: datetime) -> Sequence[Grant]:
        """Those that hold or may still be redeemed, newest first."""
        query = select(node_grants).where(_rows.node_id == node_id, _is_open(now)).order_by(_rows.id.desc())
        async with reading(self._engine) as connection:
            return [_grant(row) for row in await connection.execute(query)]

    async def live_of(self, node_id: str, grantee: str, now: datetime) -> Sequence[Grant]:
        """Those that ``grantee`` may send by now, oldest first."""
        query = select(node_grants).where(_rows.node_id == node_id, _rows.grantee == grantee, _is_open(now)).order_by(_rows.id)
        async with reading(self._engine) as connection:
            return [grant for row in await connection.execute(query) if (grant := _grant(row)).is_live(now)]

    async def of_grantee(self, grantee: str, now: datetime) -> Sequence[HeldGrant]:
        """What somebody may send by now, newest first."""
        query = (
            select(node_grants, nodes.c.name.label("node_name"), nodes.c.owner.label("node_owner"))
            .join(nodes, nodes.c.id == _rows.node_id)
            .where(_rows.grantee == grantee, _is_open(now), nodes.c.revoked_at.is_(None))
            .order_by(_rows.id.desc())
        )
        async with reading(self._engine) as connection:
            return [HeldGrant(_grant(row), row.node_name, row.node_owner) for row in await connection.execute(query)]

    async def revoke(self, node_id: str, grant_id: str, now: datetime) -> bool:
        """From now on nobody sends by it. False: the node has none of this id."""
        mine = (_rows.node_id == node_id, _rows.id == grant_id)
        async with writing(self._engine) as connection:
            revoked = update(node_grants).where(*mine).values(revoked_at=func.coalesce(_rows.revoked_at, now))
            return (await connection.execute(revoked)).rowcount == 1

    async def use(self, grant_id: str, size_bytes: int, now: datetime) -> bool:
        """Count so many bytes; false, and nothing done, where it does not hold or has not so many left."""
        async with writing(self._engine) as connection:
            return await count_bytes(connection, GrantUse(grant_id, size_bytes), now)

    async def give_back(self, grant_id: str, size_bytes: int) -> None:
        """What was counted, of a transfer that was not begun after all."""
        async with writing(self._engine) as connection:
            less = update(node_grants).where(_rows.id == grant_id, _rows.used_bytes >= size_bytes)
            await connection.execute(less.values(used_bytes=_rows.used_bytes - size_bytes))

    async def redeem(self, invitation_sha256: str, grantee: str, now: datetime) -> HeldGrant | None:
        """Whoever is first has it; None where it does not hold (any more)."""
        is_there = exists().where(nodes.c.id == _rows.node_id, nodes.c.revoked_at.is_(None), nodes.c.owner != grantee)
        good = (_rows.invitation_sha256 == invitation_sha256, _rows.grantee.is_(None), _is_open(now), is_there)
        async with writing(self._engine) as connection:
            taken = update(node_grants).where(*good).values(grantee=grantee, redeemed_at=now, invitation_sha256=None)
            row = (await connection.execute(taken.returning(_rows.id))).one_or_none()
            if row is None:
                return None
            query = (
                select(node_grants, nodes.c.name.label("node_name"), nodes.c.owner.label("node_owner"))
                .join(nodes, nodes.c.id == _rows.node_id)
                .where(_rows.id == row.id)
            )
            held = (await connection.execute(query)).one()
        return HeldGrant(_grant(held), held.node_name, held.node_owner)


async def count_bytes(connection: AsyncConnection, use: GrantUse, now: datetime) -> bool:
    """Within somebody's transaction; false, and nothing done, where the grant does not hold or has not so many left."""
    # Written so that nothing goes beyond the column, where an agent tells of impossible sizes.
    within = _rows.used_bytes <= MOST_BYTES - use.size_bytes
    fits = and_(within, or_(_rows.max_bytes.is_(None), _rows.used_bytes <= _rows.max_bytes - use.size_bytes))
    used = update(node_grants).where(_rows.id == use.grant_id, _rows.grantee.is_not(None), _is_open(now), fits)
    return (await connection.execute(used.values(used_bytes=_rows.used_bytes + use.size_bytes))).rowcount == 1


def _is_open(now: datetime) -> ColumnElement[bool]:
    """It holds, or is an invitation that may be redeemed."""
    has_time = or_(_rows.expires_at.is_(None), _rows.expires_at > now)
    is_taken = or_(_rows.grantee.is_not(None), _rows.invitation_expires_at > now)
    return and_(_rows.revoked_at.is_(None), has_time, is_taken)


def _grant(row: Row[Any]) -> Grant:
    return Grant(**{name: getattr(row, name) for name in _FIELDS})
