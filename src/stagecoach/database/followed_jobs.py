"""The jobs that the scheduler is asked about, as light rows: ten thousand of them fit in memory, whatever their digests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, bindparam, not_, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stagecoach.core.polling import QUIET_FRACTION
from stagecoach.core.transfer import Direction, State, WaitPolicy
from stagecoach.database.engine import reading, writing
from stagecoach.database.tables import transfers


@dataclass(frozen=True, slots=True)
class Sight:
    """Of which transfer, state and job an answer is. Its progress may be saved meanwhile; that makes no answer stale."""

    transfer_id: str
    state: State
    job_id: str


@dataclass(frozen=True, slots=True)
class FollowedJob:
    """What an answer of the scheduler is compared with."""

    transfer_id: str
    state: State
    owner: str
    job_id: str
    job_name: str
    job_state: str | None
    job_reason: str | None
    restarts: int
    attempt: int
    failed_looks: int
    reason: str | None
    changed_at: datetime
    expires_at: datetime | None
    next_check_at: datetime

    @property
    def sight(self) -> Sight:
        """What must still be so when the answer is carried out."""
        return Sight(self.transfer_id, self.state, self.job_id)


@dataclass(frozen=True, slots=True)
class Postponed:
    """A followed job with nothing new: when it is looked at again, after how many errors in a row, and why it waits."""

    job: FollowedJob
    next_check_at: datetime
    failed_looks: int = 0
    reason: str | None = None


# Changed so lately that the next news may come at any moment.
LIVELY_SECONDS = 30.0


def is_followed(now: datetime) -> ColumnElement[bool]:
    """Whether the scheduler's report is needed for the next look: the job may run, or has yet to be seen out.

    ``Transfer.job_is_on_its_way_out`` says the same of the latter; a staged download whose time is over needs no report.
    """
    seen_out = or_(transfers.c.job_ended, transfers.c.cleaned)
    is_over = and_(transfers.c.expires_at.is_not(None), transfers.c.expires_at <= now)
    is_download = transfers.c.direction == Direction.DOWNLOAD.value
    return and_(
        transfers.c.job_id.is_not(None),
        or_(
            transfers.c.state.in_([State.QUEUED.value, State.MOVING.value]),
            and_(transfers.c.state == State.RECEIVING.value, transfers.c.wait == WaitPolicy.IN_JOB.value),
            and_(transfers.c.state == State.DONE.value, not_(seen_out)),
            and_(transfers.c.state == State.STAGED.value, is_download, not_(seen_out), not_(is_over)),
        ),
    )


def is_due(now: datetime, due_in_seconds: float = 0.0) -> ColumnElement[bool]:
    """Due, or so within ``due_in_seconds``, whoever holds it."""
    return and_(transfers.c.next_check_at.is_not(None), transfers.c.next_check_at <= now + timedelta(seconds=due_in_seconds))


def is_free(now: datetime, due_in_seconds: float = 0.0) -> ColumnElement[bool]:
    """Due, or so within ``due_in_seconds``, and held by nobody."""
    return and_(is_due(now, due_in_seconds), or_(transfers.c.lease_until.is_(None), transfers.c.lease_until < now))


def is_still_so(sights: Sequence[Sight]) -> ColumnElement[bool]:
    """Of one of ``sights``, in its state and with its job."""
    seen = [(sight.transfer_id, sight.state.value, sight.job_id) for sight in sights]
    return tuple_(transfers.c.id, transfers.c.state, transfers.c.job_id).in_(seen)


_COLUMNS = [
    transfers.c.id,
    transfers.c.state,
    transfers.c.owner,
    transfers.c.job_id,
    transfers.c.job_name,
    transfers.c.job_state,
    transfers.c.job_reason,
    transfers.c.restarts,
    transfers.c.attempt,
    transfers.c.failed_looks,
    transfers.c.reason,
    transfers.c.changed_at,
    transfers.c.expires_at,
    transfers.c.next_check_at,
]


class FollowedJobs:
    """The followed jobs of the transfers table. No lease is taken here: who asks a system has won the right to."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def systems_with_due(self, systems: Collection[str], now: datetime) -> list[str]:
        """Those of ``systems`` where a followed job is due."""
        found = []
        async with reading(self._engine) as connection:
            for system in systems:
                query = select(transfers.c.id).where(is_free(now), transfers.c.system == system, is_followed(now)).limit(1)
                if (await connection.execute(query)).first() is not None:
                    found.append(system)
        return found

    async def due(self, system: str, now: datetime, limit: int) -> list[FollowedJob]:
        """Those that are due or will be in a moment, the longest waiting first.

        A moment is the longest pause of :meth:`lively`: what is looked at again and again between two asks misses none.
        """
        free = is_free(now, LIVELY_SECONDS * QUIET_FRACTION)
        query = select(*_COLUMNS).where(free, transfers.c.system == system, is_followed(now))
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query.order_by(transfers.c.next_check_at).limit(limit))).all()
        return [FollowedJob(row[0], State(row[1]), *row[2:]) for row in rows]

    async def lively(self, systems: Collection[str], now: datetime, limit: int) -> list[Sight]:
        """Those that are due, changed within ``LIVELY_SECONDS``, and have not arrived yet."""
        query = select(transfers.c.id, transfers.c.state, transfers.c.job_id).where(
            is_free(now),
            is_followed(now),
            transfers.c.system.in_(systems),
            transfers.c.state.in_([State.RECEIVING.value, State.QUEUED.value, State.MOVING.value]),
            transfers.c.changed_at > now - timedelta(seconds=LIVELY_SECONDS),
        )
        async with reading(self._engine) as connection:
            rows = (await connection.execute(query.order_by(transfers.c.next_check_at).limit(limit))).all()
        return [Sight(row[0], State(row[1]), row[2]) for row in rows]

    async def still_due(self, sights: Sequence[Sight], now: datetime, due_in_seconds: float) -> list[Sight]:
        """Those that are still so and due within ``due_in_seconds``, whoever holds them."""
        query = select(transfers.c.id).where(is_due(now, due_in_seconds), is_still_so(sights))
        async with reading(self._engine) as connection:
            found = set((await connection.scalars(query)).all())
        return [sight for sight in sights if sight.transfer_id in found]

    async def put_off(self, postponed: Sequence[Postponed], now: datetime) -> None:
        """Note when each is looked at again; nothing happens to one that has another state or job by now, or is looked at."""
        if not postponed:
            return
        statement = (
            update(transfers)
            .where(
                transfers.c.id == bindparam("its_id"),
                transfers.c.state == bindparam("its_state"),
                transfers.c.job_id == bindparam("its_job_id"),
                transfers.c.next_check_at.is_not(None),
                or_(transfers.c.lease_until.is_(None), transfers.c.lease_until < now),
            )
            .values(next_check_at=bindparam("due_at"), failed_looks=bindparam("its_failed_looks"), reason=bindparam("its_reason"))
        )
        values = [
            {
                "its_id": each.job.transfer_id,
                "its_state": each.job.state.value,
                "its_job_id": each.job.job_id,
                "due_at": each.next_check_at,
                "its_failed_looks": each.failed_looks,
                "its_reason": each.reason,
            }
            # Always in one order, so that two transactions never wait for each other's rows.
            for each in sorted(postponed, key=lambda each: each.job.transfer_id)
        ]
        async with writing(self._engine) as connection:
            await connection.execute(statement, values)
