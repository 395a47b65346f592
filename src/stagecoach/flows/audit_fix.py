"""Removes what an audit has found, with the calls that cleaning up uses, and audits again.

Each thing is compared with its row once more just before. Jobs go first, since one that still runs would make again
what is removed under it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from stagecoach.core.audit import Finding, Kind, Thing, why_orphan
from stagecoach.core.errors import StagecoachError, SystemUnavailable
from stagecoach.core.names import JOB_NAME_PREFIX
from stagecoach.flows.audit import Audit, audit
from stagecoach.flows.audit_looks import Scope
from stagecoach.flows.toolbox import Toolbox

log = logging.getLogger(__name__)

JOB_END_SECONDS = 60.0
LOOK_SECONDS = 0.5
_ORDER = (Kind.JOB, Kind.MULTIPART, Kind.OBJECT, Kind.JOB_DIRECTORY, Kind.TEMPORARY_FILE)


async def run_audit(tools: Toolbox, scope: Scope, *, fix: bool) -> Audit:
    """With ``fix``, what is left after the repairs: ``fixed`` was repaired, ``unseen`` also could not be removed."""
    before = await audit(tools, scope)
    if not fix:
        return before
    fixed: list[Finding] = []
    trouble: list[tuple[str, str]] = []
    for finding in sorted(before.findings, key=_turn):
        try:
            if finding.fixable and await _fix(tools, scope, finding):
                fixed.append(finding)
        except StagecoachError as error:
            log.warning("audit: %s %s stays: %s", finding.kind, finding.name, error.message)
            trouble.append((finding.place, f"{finding.kind} {finding.name} could not be removed: {error.message}"))
    after = await audit(tools, scope)
    return replace(after, fixed=tuple(fixed), unseen=sorted({*after.unseen, *trouble}))


def _turn(finding: Finding) -> int:
    return _ORDER.index(finding.kind) if finding.kind in _ORDER else len(_ORDER)


async def _fix(tools: Toolbox, scope: Scope, finding: Finding) -> bool:
    """False when it is no orphan any more."""
    began_at = tools.now()
    rows = await tools.inventory.rows([finding.transfer_id] if finding.transfer_id else [])
    row = rows.get(finding.transfer_id or "")
    if finding.thing is not None:
        if why_orphan(finding.thing, row, tools.now(), began_at, scope.grace_seconds) is None:
            return False
        await _remove(tools, finding.thing)
    elif finding.kind is Kind.MISSING_BUCKET:
        await tools.inventory.forget_bucket(finding.name)
    elif row is None:
        return False
    elif finding.kind is Kind.STUCK_TRANSFER:
        await tools.inventory.wake(row, tools.now())
        tools.nudge_worker()
    elif finding.kind is Kind.NO_HISTORY:
        await tools.inventory.tell(row, "What happened before is not known; an audit found no history.", tools.now())
    log.info("audit: removed or repaired %s %s in %s (%s)", finding.kind, finding.name, finding.place, finding.why)
    return True


async def _remove(tools: Toolbox, thing: Thing) -> None:
    if thing.kind is Kind.OBJECT:
        await tools.store.delete_objects(thing.place, [thing.name])
    elif thing.kind is Kind.MULTIPART:
        await tools.store.abort_multipart(thing.place, thing.name, thing.upload_id)
    elif thing.kind is Kind.JOB:
        await _end_job(tools, thing)
    else:
        # The hidden one is a file, or a directory where an archive was unpacked: both are trees.
        await tools.system(thing.place).files.remove_tree(thing.user or "", thing.name)


async def _end_job(tools: Toolbox, thing: Thing) -> None:
    scheduler, user = tools.system(thing.place).scheduler, thing.user or ""
    try:
        async with asyncio.timeout(JOB_END_SECONDS):
            while True:
                await scheduler.cancel(user, thing.name)
                jobs = await scheduler.list_open_jobs(user, f"{JOB_NAME_PREFIX}{thing.transfer_id}", of_everyone=False)
                if thing.name not in {job.job_id for job in jobs}:
                    return
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        raise SystemUnavailable(f"Job {thing.name} was cancelled and has not ended within {JOB_END_SECONDS:g} s.") from error
