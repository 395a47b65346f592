"""Moves the client's leg with the mover's engine: the same code that runs on the cluster puts and fetches here."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from stagecoach.client.sources import Source
from stagecoach.mover import stagecoach_mover

T = TypeVar("T")
ReportBytes = Callable[[int], None]
"""Called now and then with the bytes done so far, in the client's event loop."""
Ticket = dict[str, Any]
Receipt = dict[str, Any]
Renew = Callable[[], Awaitable[Ticket]]
"""Gives the ticket with fresh URLs, once a store says that one has expired."""
Complete = Callable[[list[str] | None], Awaitable[bool]]
"""Completes an upload whose parts are all there, given the CRC-32 of each; False: the mover shall do it by its URL."""


def put_ticket(source: Source, transfer_id: str, part_size_bytes: int, part_urls: list[str], complete_url: str) -> Ticket:
    """For all parts of ``source``; the client is given no URL to look at the object, the service looks itself.

    The receipt has ``part_crc32``, by which the cluster can prove each part for a fifth of what MD5 costs.
    """
    ticket = _ticket("put", source.path, transfer_id, source.size_bytes, part_size_bytes, source.is_tree)
    return {**ticket, "part_crc32": True, "upload": {"part_urls": part_urls, "complete_url": complete_url}}


def fetch_ticket(
    target: Path, transfer_id: str, size_bytes: int, part_size_bytes: int, get_url: str, head_url: str, *, is_tree: bool = False
) -> Ticket:
    """For the whole object; ``target`` is replaced (a directory: made) only when all is here and verified."""
    ticket = _ticket("fetch", target, transfer_id, size_bytes, part_size_bytes, is_tree)
    return {**ticket, "object": {"get_url": get_url, "head_url": head_url, "etag": None}}


def _ticket(kind: str, path: Path, transfer_id: str, size_bytes: int, part_size_bytes: int, is_tree: bool) -> Ticket:
    return {
        **({"archive": "tar"} if is_tree else {}),
        "version": 1,
        "transfer_id": transfer_id,
        "kind": kind,
        "path_base64": base64.b64encode(os.fsencode(path.absolute())).decode(),
        "size_bytes": size_bytes,
        "part_size_bytes": part_size_bytes,
    }


async def move(
    ticket: Ticket, state_directory: Path, renew: Renew, report: ReportBytes | None, complete: Complete | None = None
) -> Receipt:
    """The mover's receipt, good or bad. It works in a thread, so that the event loop stays free.

    Cancelling the task stops the mover and waits until its journal is written.
    """
    stop, loop = threading.Event(), asyncio.get_running_loop()

    def on_progress(progress: dict[str, Any]) -> None:
        if report is not None:
            loop.call_soon_threadsafe(report, int(progress["bytes_done"]))

    def in_the_loop(work: Awaitable[T]) -> T:
        asked = asyncio.run_coroutine_threadsafe(_awaited(work), loop)
        while True:
            try:
                return asked.result(timeout=0.2)
            except TimeoutError:
                if stop.is_set() or asked.done():
                    asked.cancel()
                    raise

    def reload_ticket() -> Ticket:
        return in_the_loop(renew())

    def completed(part_crc32: list[str] | None) -> bool:
        try:
            return complete is not None and in_the_loop(complete(part_crc32))
        except TimeoutError:  # stopped
            return False

    def run() -> Receipt:
        where = str(state_directory)
        if ticket["kind"] == "fetch":
            return stagecoach_mover.fetch(ticket, where, on_progress, stop, reload_ticket)
        completes = None if complete is None else completed
        return stagecoach_mover.put(ticket, where, on_progress, stop, reload_ticket, complete=completes)

    running = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await running
        raise


async def _awaited(work: Awaitable[T]) -> T:
    return await work
