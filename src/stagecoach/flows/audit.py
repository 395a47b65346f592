"""Compares the database, the store, the schedulers and the work directories, and tells what nothing needs any more.

The rows are read first, then all is looked at, and each suspicion is compared with its row as it is after the look: so
nothing that a request or a worker makes meanwhile is taken for an orphan.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from stagecoach.core.audit import Finding, Kind, Thing, why_broken, why_orphan, why_stuck
from stagecoach.core.transfer import Transfer
from stagecoach.flows.audit_looks import Scope, Seen, look_at_store, look_at_system
from stagecoach.flows.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found. ``unseen`` could not be looked at, ``foreign`` is not ours and is left alone: (place, words) each.

    ``fixed`` holds what an audit with repairs has found and removed; ``findings`` is then what is left.
    """

    findings: Sequence[Finding]
    unseen: Sequence[tuple[str, str]]
    foreign: Sequence[tuple[str, str]]
    fixed: Sequence[Finding] = field(default=())


async def audit(tools: Toolbox, scope: Scope) -> Audit:
    """One look at everything. Raises DatabaseUnavailable; what else does not answer is in ``unseen``."""
    began_at = tools.now()
    rows = {row.id: row for row in await tools.inventory.open_rows()}
    known_buckets = await tools.inventory.buckets()
    owners: dict[str, list[str]] = {}
    for system, owner in await tools.inventory.owners():
        owners.setdefault(system, []).append(owner)
    looks = [
        look_at_store(tools, {**{row.bucket: row.owner for row in rows.values() if row.bucket}, **known_buckets}),
        *(look_at_system(tools, system, users, scope) for system, users in owners.items()),
    ]
    seen = await asyncio.gather(*looks)
    judge = _Judge(tools, scope, began_at, rows)
    findings = [
        *await judge.things([thing for each in seen for thing in each.things]),
        *await judge.broken(seen[0]),
        *judge.missing_buckets(seen[0], known_buckets),
        *await judge.stuck(),
    ]
    return Audit(
        findings=list({finding.identity: finding for finding in findings}.values()),
        unseen=sorted({note for each in seen for note in each.unseen}),
        foreign=sorted({note for each in seen for note in each.foreign}),
    )


class _Judge:
    """Suspicions against rows as they are now."""

    def __init__(self, tools: Toolbox, scope: Scope, began_at: datetime, rows: Mapping[str, Transfer]) -> None:
        self._tools = tools
        self._scope = scope
        self._began_at = began_at
        self._rows = rows

    async def things(self, things: Sequence[Thing]) -> list[Finding]:
        # What the first reading needs is no suspect, whatever has become of its row since: it was seen in between.
        suspects = [
            thing
            for thing in things
            if (first := self._rows.get(thing.transfer_id)) is None or self._finding(thing, first) is not None
        ]
        fresh = await self._tools.inventory.rows({thing.transfer_id for thing in suspects})
        judged = (self._finding(thing, fresh.get(thing.transfer_id)) for thing in suspects)
        return [finding for finding in judged if finding is not None]

    def _finding(self, thing: Thing, row: Transfer | None) -> Finding | None:
        now = self._tools.now()
        why = why_orphan(thing, row, now, self._began_at, self._scope.grace_seconds)
        if why is None:
            return None
        return Finding(
            kind=thing.kind,
            place=thing.place,
            name=thing.name,
            why=why,
            fixable=True,
            transfer_id=thing.transfer_id,
            user=thing.user or (row.owner if row is not None else None),
            age_seconds=thing.age_seconds(now),
            thing=thing,
        )

    async def broken(self, store: Seen) -> list[Finding]:
        """Rows whose data is not in a store that was wholly seen, asked once more each."""
        findings = []
        objects = {(thing.place, thing.name) for thing in store.things if thing.kind is Kind.OBJECT}
        multiparts = {(thing.place, thing.name, thing.upload_id) for thing in store.things if thing.kind is Kind.MULTIPART}
        for row in self._rows.values():
            key = row.object_key
            listed = {"has_object": (row.bucket, key) in objects, "has_multipart": (row.bucket, key, row.upload_id) in multiparts}
            settled = (self._tools.now() - row.changed_at).total_seconds() >= self._scope.grace_seconds
            if row.bucket not in store.whole or not settled or why_broken(row, **listed) is None:
                continue
            has_object = await self._tools.store.head_object(row.bucket, key) is not None
            parts = await self._tools.store.list_parts(row.bucket, key, row.upload_id or "")
            now_row = (await self._tools.inventory.rows([row.id])).get(row.id)
            if now_row is None or now_row.state is not row.state:
                continue
            why = why_broken(now_row, has_object=has_object, has_multipart=parts is not None)
            if why is not None:
                findings.append(self._about(now_row, Kind.BROKEN_TRANSFER, why, fixable=False, since=now_row.changed_at))
        return findings

    def missing_buckets(self, store: Seen, known: Mapping[str, str]) -> list[Finding]:
        why = "the store has no such bucket"
        missing = sorted(store.missing_buckets & set(known))
        return [Finding(Kind.MISSING_BUCKET, "database", name, why, fixable=True, user=known[name]) for name in missing]

    async def stuck(self) -> list[Finding]:
        worker, now = self._tools.settings.worker, self._tools.now()
        suspects = [row for row in self._rows.values() if why_stuck(row, now, worker.lease_seconds, worker.job_lost_seconds)]
        fresh = await self._tools.inventory.rows([row.id for row in suspects])
        findings = []
        for row in fresh.values():
            stuck = why_stuck(row, now, worker.lease_seconds, worker.job_lost_seconds)
            if stuck is not None:
                findings.append(self._about(row, Kind.STUCK_TRANSFER, stuck[0], fixable=stuck[1], since=row.updated_at))
        why = "its row has no history"
        silent = await self._tools.inventory.without_history()
        return findings + [self._about(row, Kind.NO_HISTORY, why, fixable=True, since=row.created_at) for row in silent]

    def _about(self, row: Transfer, kind: Kind, why: str, *, fixable: bool, since: datetime) -> Finding:
        age = (self._tools.now() - since).total_seconds()
        return Finding(kind, "database", row.id, why, fixable, transfer_id=row.id, user=row.owner, age_seconds=age)
