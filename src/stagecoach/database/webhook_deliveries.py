"""What is still to be told to webhooks: written with the change that it tells of, taken by one worker at a time.

A row that has no ``next_try_at`` is over: delivered, or given up. Rows of one transfer are taken in the order of their
ids, each only when those before it are over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stagecoach.core.transfer import Transfer
from stagecoach.core.webhooks import webhook_host
from stagecoach.database.engine import reading, writing
from stagecoach.database.tables import webhook_deliveries
from stagecoach.wire.views import view

EVENT_TYPE = "transfer.state_changed"
GONE = "The receiver answered HTTP 410: it wants no more messages of this transfer."

_rows = webhook_deliveries.c
_is_open = _rows.next_try_at.is_not(None)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one webhook. ``tries`` counts the one that it was taken for."""

    id: str
    transfer_id: str
    url: str
    body: str
    tries: int


async def add_delivery(connection: AsyncConnection, transfer: Transfer) -> None:
    """Have the transfer's new state told to its webhook, in the transaction of the change."""
    if transfer.webhook_url is None:
        return
    gone = exists().where(_rows.transfer_id == transfer.id, _rows.trouble == GONE)
    if await connection.scalar(select(gone)):
        return
    # Versions of a transfer are saved one after the other, so ids made of them have its messages' order.
    message_id = f"{transfer.id}-{transfer.version:08d}"
    body = {
        "type": EVENT_TYPE,
        "id": message_id,
        "timestamp": transfer.updated_at.isoformat().replace("+00:00", "Z"),
        "data": view(transfer).model_dump(mode="json", by_alias=True),
    }
    await connection.execute(
        insert(webhook_deliveries).values(
            id=message_id,
            transfer_id=transfer.id,
            host=webhook_host(transfer.webhook_url),
            url=transfer.webhook_url,
            body=json.dumps(body, ensure_ascii=False, separators=(",", ":")),
            created_at=transfer.updated_at,
            tries=0,
            next_try_at=transfer.updated_at,
        )
    )


class WebhookDeliveries:
    """The webhook_deliveries table behind plain methods."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def claim_due(
        self, now: datetime, lease_seconds: float, limit: int, *, without_hosts: Sequence[str] = ()
    ) -> list[Delivery]:
        """Take messages that are due and that nobody holds; a dead worker's lease runs out by itself.

        At most one of each transfer: its oldest. The lease is given back by one of the methods below.
        """
        earlier = webhook_deliveries.alias()
        free = and_(
            _is_open,
            _rows.next_try_at <= now,
            or_(_rows.lease_until.is_(None), _rows.lease_until < now),
            _rows.host.not_in(without_hosts),
            ~exists().where(
                earlier.c.transfer_id == _rows.transfer_id, earlier.c.id < _rows.id, earlier.c.next_try_at.is_not(None)
            ),
        )
        async with reading(self._engine) as connection:
            if (await connection.execute(select(_rows.id).where(free).limit(1))).first() is None:
                return []
        due = select(_rows.id).where(free).order_by(_rows.next_try_at).limit(limit).with_for_update(skip_locked=True)
        claim = (
            update(webhook_deliveries)
            .where(_rows.id.in_(due.scalar_subquery()))
            .values(lease_until=now + timedelta(seconds=lease_seconds), tries=_rows.tries + 1)
            .returning(_rows.id, _rows.transfer_id, _rows.url, _rows.body, _rows.tries)
        )
        async with writing(self._engine) as connection:
            return [Delivery(**row) for row in (await connection.execute(claim)).mappings()]

    async def delivered(self, delivery: Delivery, now: datetime) -> None:
        """The receiver has it."""
        await self._over(delivery, delivered_at=now, trouble=None)

    async def put_off(self, delivery: Delivery, next_try_at: datetime, trouble: str) -> None:
        """To be tried again."""
        await self._over(delivery, next_try_at=next_try_at, trouble=trouble)

    async def give_up(self, delivery: Delivery, trouble: str) -> None:
        """Never to be tried again; the transfer's next message may go."""
        await self._over(delivery, trouble=trouble)

    async def end(self, delivery: Delivery) -> None:
        """The receiver wants no more of this transfer: neither this message nor those that wait behind it."""
        async with writing(self._engine) as connection:
            await connection.execute(
                update(webhook_deliveries)
                .where(_rows.transfer_id == delivery.transfer_id, _is_open)
                .values(next_try_at=None, lease_until=None, trouble=GONE)
            )

    async def _over(
        self,
        delivery: Delivery,
        *,
        trouble: str | None,
        next_try_at: datetime | None = None,
        delivered_at: datetime | None = None,
    ) -> None:
        async with writing(self._engine) as connection:
            await connection.execute(
                update(webhook_deliveries)
                # Not where the lease ran out and another worker has taken it since.
                .where(_rows.id == delivery.id, _rows.tries == delivery.tries, _is_open)
                .values(next_try_at=next_try_at, lease_until=None, delivered_at=delivered_at, trouble=trouble)
            )

    async def standing(self, transfer_id: str) -> tuple[int, str | None]:
        """How many messages of the transfer are still to be delivered, and what the latest trouble is, if any."""
        mine = _rows.transfer_id == transfer_id
        pending = select(func.count()).select_from(webhook_deliveries).where(mine, _is_open)
        trouble = select(_rows.trouble).where(mine, _rows.trouble.is_not(None)).order_by(_rows.id.desc()).limit(1)
        async with reading(self._engine) as connection:
            return int(await connection.scalar(pending) or 0), await connection.scalar(trouble)

    async def forget(self, before: datetime) -> int:
        """Remove what is over and older than ``before``; returns how many."""
        async with writing(self._engine) as connection:
            old = delete(webhook_deliveries).where(_rows.next_try_at.is_(None), _rows.created_at < before)
            return int((await connection.execute(old)).rowcount)
