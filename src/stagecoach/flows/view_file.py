"""Shows the text of a file; of a transfer's log, what the transfer says: the file itself goes when the transfer ends.

FirecREST's client looks into that log for one of three phrases, and takes a transfer for done by it alone. So the phrase
is there when the file is proved to be at its place, and never before, whatever the mover has printed.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stagecoach.core import names
from stagecoach.core.access import Caller
from stagecoach.core.errors import StagecoachError
from stagecoach.core.job_scripts import ERROR_FILE, OUTPUT_FILE
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.flows.clean_up import keep_job_log
from stagecoach.flows.read_file import Content, Window, open_text
from stagecoach.flows.toolbox import Toolbox

PHRASES = ("File was successfully", "Files were successfully", "Multipart file upload successfully completed")
SUCCESS = "File was successfully moved.\n"


@asynccontextmanager
async def open_view(tools: Toolbox, caller: Caller, system_name: str, path: str, wanted: Window) -> AsyncIterator[Content]:
    """A part of a file, or all of it. Raises as :func:`open_text`."""
    transfer = await _transfer_of_log(tools, caller, system_name, path)
    if transfer is None:
        async with open_text(tools, caller, system_name, path, wanted) as content:
            yield content
        return
    part = (await _log_of(tools, transfer)).encode()[wanted.offset :][: wanted.size_bytes]
    yield Content(len(part), _at_once(part))


async def _transfer_of_log(tools: Toolbox, caller: Caller, system_name: str, path: str) -> Transfer | None:
    directory, name = posixpath.split(path)
    transfer_id = names.id_in_directory_name(posixpath.basename(directory))
    if name not in {OUTPUT_FILE, ERROR_FILE} or transfer_id is None:
        return None
    transfer = await tools.transfers.get(transfer_id)
    if transfer is None or (transfer.owner, transfer.system) != (caller.username, system_name):
        return None
    return transfer if transfer.job_directory == directory else None


async def _log_of(tools: Toolbox, transfer: Transfer) -> str:
    has_succeeded = transfer.state is State.DONE or (
        transfer.direction is Direction.DOWNLOAD and transfer.state in {State.STAGED, State.EXPIRED}
    )
    try:
        log = (await keep_job_log(tools, transfer)).job_log or ""
    except StagecoachError:
        # What is proved is told although the system does not answer just now.
        if not has_succeeded:
            raise
        log = ""
    lines = [line for line in log.splitlines(keepends=True) if not any(phrase in line for phrase in PHRASES)]
    return "".join(lines) + (SUCCESS if has_succeeded else "")


async def _at_once(content: bytes) -> AsyncIterator[bytes]:
    yield content
