"""What an agent tells of a job on the direct road: its end as a receipt, its progress, and what is worth a notice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stagecoach.core.nodes import CommandState, NodeCommand, node_id_of
from stagecoach.core.roads import SLOW_SECONDS, STALL_SECONDS, is_slow, is_stalled
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.core.verdicts import Receipt
from stagecoach.flows.toolbox import Toolbox

MOST_NOTICES = 20
MOST_NOTICE_CHARACTERS = 500
_SLOW = "It goes at less than a quarter of what the way took at the beginning; something else may use it."


async def command_of(tools: Toolbox, transfer: Transfer) -> NodeCommand | None:
    """The command that is the transfer's present job."""
    node_id = node_id_of(transfer.system)
    if node_id is None or transfer.job_id is None:
        return None
    return await tools.node_commands.get(node_id, transfer.job_id)


async def direct_receipt(tools: Toolbox, transfer: Transfer) -> Receipt | None:
    """Of a ``send`` or ``place`` that its agent has ended. A good end counts only with its proof: all was compared, or, at its
    place, has the size that was sent."""
    command = await command_of(tools, transfer)
    if command is None or command.result is None:
        return None
    told = _mapping(command.result.get("result"))
    if command.state is CommandState.FAILED:
        code, message = command.result.get("code"), command.result.get("message")
        return Receipt(False, str(code or "job_failed")[:64], str(message or "The node gave no reason."), 0, 0, None)
    if command.state is not CommandState.DONE:
        return None
    size_bytes, files = _count(told.get("sizeBytes")), _count(told.get("files"))
    if size_bytes is None or files is None:
        return None
    proved = [{"how": "size", "value": str(size_bytes)}]
    if transfer.direction is Direction.DOWNLOAD:
        if told.get("verified") is not True:
            return None
        proved.append({"how": "compared_files", "value": str(_count(told.get("comparedFiles")) or 0)})
    elif size_bytes != transfer.size_bytes:
        return None
    return Receipt(True, None, "", size_bytes, size_bytes, None, tuple(proved), files)


async def with_direct_progress(tools: Toolbox, transfer: Transfer) -> Transfer:
    """The transfer with what its agent last told, never more than there is."""
    command = await command_of(tools, transfer)
    if command is None:
        return transfer
    told, now = _mapping(command.progress), tools.now()
    ended = _mapping(_mapping(command.result).get("result"))
    transfer = with_notices(transfer, told.get("notices"), ended.get("notices"))
    if not told:
        return transfer
    total, files = _count(told.get("bytesTotal")), _count(told.get("filesTotal"))
    done = min(_count(told.get("bytesDone")) or 0, total if total is not None else 2**62)
    file_done = min(_count(told.get("filesDone")) or 0, files if files is not None else 2**62)
    rate, current = told.get("rateBytesPerSecond"), told.get("currentFile")
    after = replace(
        transfer,
        size_bytes=total if total is not None else transfer.size_bytes,
        bytes_moved=done,
        files_moved=file_done,
        file_count=files if files is not None else transfer.file_count,
        rate_bytes_per_second=float(rate) if isinstance(rate, int | float) else 0.0,
        current_file=current[:4096] if isinstance(current, str) else None,
    )
    if (after.size_bytes, after.bytes_moved) != (transfer.size_bytes, transfer.bytes_moved):
        after = replace(after, changed_at=now, updated_at=now)
    return after


def with_notices(transfer: Transfer, *said: object) -> Transfer:
    """Each once, in the order in which they came."""
    notices = list(transfer.notices)
    for some in said:
        for notice in some if isinstance(some, list) else []:
            if isinstance(notice, str) and (words := _plain(notice[:MOST_NOTICE_CHARACTERS])) not in notices:
                notices.append(words)
    return replace(transfer, notices=tuple(notices[:MOST_NOTICES]))


async def notice_trouble(tools: Toolbox, leg: Transfer) -> tuple[Transfer, str | None]:
    """A ``moving`` leg with what is worth a notice now, and the line for its story."""
    now = tools.now()
    # What is all there is being compared, in which no byte comes.
    is_all_there = leg.size_bytes is not None and leg.bytes_moved >= leg.size_bytes
    if leg.state is not State.MOVING or is_all_there:
        return replace(leg, slow_since=None), None
    if is_stalled(leg, now):
        words = f"No byte has arrived since {leg.changed_at:%Y-%m-%d %H:%M:%S} UTC ({STALL_SECONDS:.0f} seconds and more)."
        return replace(with_notices(leg, [words]), stall_noticed_at=now, rate_bytes_per_second=0.0, updated_at=now), words
    check = await tools.network_checks.of(leg.id)
    probe = check.report.get("probeBytesPerSecond") if check is not None else None
    if not is_slow(leg, float(probe) if isinstance(probe, int | float) and 0 < probe <= 1e15 else None):
        return replace(leg, slow_since=None), None
    if leg.slow_since is None:
        return replace(leg, slow_since=now), None
    if (now - leg.slow_since).total_seconds() < SLOW_SECONDS or _SLOW in leg.notices:
        return leg, None
    return replace(with_notices(leg, [_SLOW]), updated_at=now), _SLOW


def _plain(text: str) -> str:
    # Of a result nothing has looked at the characters yet.
    return "".join(character if character.isprintable() else " " for character in text)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**62 else None
