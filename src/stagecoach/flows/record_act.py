"""Writes what somebody did into the audit log, and reads it from there."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, replace
from datetime import timedelta

from stagecoach.core.audit_log import DONE, AuditFilter, AuditLine
from stagecoach.core.errors import StagecoachError
from stagecoach.flows.toolbox import Toolbox

log = logging.getLogger(__name__)

LINES_AT_ONCE = 500


async def record_act(
    tools: Toolbox,
    who: str | None,
    what: str,
    target: str | None = None,
    result: str = DONE,
    *,
    address: str | None = None,
    request_id: str | None = None,
    detail: Mapping[str, object] | None = None,
) -> None:
    """One line, now. ``what`` is an ``Act`` or a word like one; ``detail`` is plain JSON and holds no secret.

    It raises nothing: what was done is done. A line that cannot be written into the database goes into the process's log.
    """
    line = AuditLine(tools.now(), who, what, target, result, address, request_id, dict(detail or {}))
    try:
        await tools.audit_log.append(line)
    except StagecoachError as error:
        log.error("this line is missing in the audit log (%s): %s", error.code, as_json(line))


async def audit_lines(tools: Toolbox, wanted: AuditFilter) -> AsyncIterator[AuditLine]:
    """Oldest first, at most ``wanted.limit``, read a piece at a time."""
    left = wanted.limit
    while left > 0:
        asked = min(left, LINES_AT_ONCE)
        page = await tools.audit_log.page(replace(wanted, limit=asked))
        for line in page:
            yield line
        if len(page) < asked:
            return
        left -= len(page)
        wanted = replace(wanted, after=page[-1].number)


def as_json(line: AuditLine) -> str:
    """One line of NDJSON, without the line's end."""
    return json.dumps({**asdict(line), "at": line.at.isoformat()}, ensure_ascii=False)


async def forget_old_lines(tools: Toolbox) -> int:
    """What is older than the settings keep, in batches. Returns how many went."""
    days = tools.settings.audit_log.keep_days
    if not days:
        return 0
    before, forgotten = tools.now() - timedelta(days=days), 0
    while gone := await tools.audit_log.forget_older(before, LINES_AT_ONCE):
        forgotten += gone
    return forgotten
