"""Runs a command on this machine as the account of this service, with nothing of this service's environment but its PATH."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stagecoach.clusters.ssh_pool import MAX_OUTPUT_BYTES, CommandResult
from stagecoach.core.errors import OperationTooLong, SystemUnavailable


async def run_locally(words: Sequence[str], timeout_seconds: float) -> CommandResult:
    """No input; what is printed is bounded.

    Raises:
        OperationTooLong: it was ended. SystemUnavailable: it cannot be started, or printed too much.
    """
    try:
        process = await _start(words)
    except OSError as error:
        raise SystemUnavailable(f"{words[0]} cannot be started on this machine ({error.strerror}).") from error
    try:
        assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes
        async with asyncio.timeout(timeout_seconds):
            stdout, stderr = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            status = await process.wait()
    except TimeoutError as error:
        raise OperationTooLong(f"A command took longer than {timeout_seconds:g} s.") from error
    except OverflowError as error:
        raise SystemUnavailable(f"A command printed more than {MAX_OUTPUT_BYTES} bytes.") from error
    finally:
        if process.returncode is None:
            _end(process)
            await process.wait()
    return CommandResult(status, stdout.decode("utf-8", "surrogateescape"), stderr.decode("utf-8", "surrogateescape"))


async def _start(words: Sequence[str]) -> Process:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path.home())}
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *map(os.fsencode, words), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment, start_new_session=True
        )
    )
    try:
        # Cancelled within, asyncio would kill the first process only, and then wait until its children close the pipes.
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_end_started)
        raise


def _end_started(starting: asyncio.Future[Process]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        _end(starting.result())


def _end(process: Process) -> None:
    # With its children: a compressor that is fed by tar, say.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)


async def _read(reader: asyncio.StreamReader) -> bytes:
    pieces, size = [], 0
    while piece := await reader.read(64 * 1024):
        size += len(piece)
        if size > MAX_OUTPUT_BYTES:
            raise OverflowError
        pieces.append(piece)
    return b"".join(pieces)
