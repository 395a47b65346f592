"""Moves the client's leg with the mover's engine: the same code that runs on the cluster puts and fetches here."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stagecoach.client.errors import TransferFailed
from stagecoach.mover import stagecoach_mover

ReportBytes = Callable[[int], None]
"""Called now and then with the bytes done so far, in the client's event loop."""


async def put_parts(
    source: Path,
    transfer_id: str,
    size_bytes: int,
    part_size_bytes: int,
    part_urls: Sequence[str],
    complete_url: str,
    report: ReportBytes | None,
) -> dict[str, Any]:
    """Put every part and complete the upload; returns the mover's receipt. Raises TransferFailed."""
    ticket = _ticket("put", source, transfer_id, size_bytes, part_size_bytes)
    ticket["upload"] = {"part_urls": list(part_urls), "complete_url": complete_url}
    return await _run(stagecoach_mover.put, ticket, report)


async def fetch_object(
    target: Path, transfer_id: str, size_bytes: int, part_size_bytes: int, url: str, head_url: str, report: ReportBytes | None
) -> dict[str, Any]:
    """Fetch the object to ``target``, which is replaced only when all is whole and verified. Raises TransferFailed."""
    # A link at the target stays one: the file that it points to is replaced.
    ticket = _ticket("fetch", await asyncio.to_thread(target.resolve), transfer_id, size_bytes, part_size_bytes)
    ticket["object"] = {"get_url": url, "head_url": head_url, "etag": None}
    return await _run(stagecoach_mover.fetch, ticket, report)


def _ticket(kind: str, path: Path, transfer_id: str, size_bytes: int, part_size_bytes: int) -> dict[str, Any]:
    return {
        "version": 1,
        "transfer_id": transfer_id,
        "kind": kind,
        "path_base64": base64.b64encode(os.fsencode(path.absolute())).decode(),
        "size_bytes": size_bytes,
        "part_size_bytes": part_size_bytes,
    }


async def _run(move: Callable[..., dict[str, Any]], ticket: dict[str, Any], report: ReportBytes | None) -> dict[str, Any]:
    """In a thread, so that the event loop stays free. Cancelling the task stops the mover and waits for it."""
    stop, loop = threading.Event(), asyncio.get_running_loop()

    def on_progress(progress: dict[str, Any]) -> None:
        if report is not None:
            loop.call_soon_threadsafe(report, int(progress["bytes_done"]))

    running = asyncio.ensure_future(asyncio.to_thread(move, ticket, on_progress=on_progress, stop=stop))
    try:
        receipt = await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await running
        raise
    if not receipt["ok"]:
        raise TransferFailed(str(receipt["message"]), str(receipt["code"]))
    return receipt
