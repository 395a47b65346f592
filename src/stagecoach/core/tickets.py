"""The two documents that pass between service and mover: builds the ticket, reads the receipt. Format: ``docs/ticket.md``."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stagecoach.core.parts import MAX_OBJECT_SIZE_BYTES
from stagecoach.core.transfer import Direction, Transfer
from stagecoach.core.verdicts import Receipt

TICKET_VERSION = 1
MAX_RECEIPT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class TicketUrls:
    """Presigned URLs of one staging job. Fetch needs ``get``; put needs ``parts`` and ``complete``."""

    head: str
    progress: str
    receipt: str
    get: str | None = None
    parts: Sequence[str] = ()
    complete: str | None = None


def build_ticket(
    transfer: Transfer,
    urls: TicketUrls,
    *,
    concurrency: int | None,
    wait_until_epoch_seconds: int | None,
    root: str | None = None,
    limit_bytes: int | None = None,
    place: str | None = None,
) -> bytes:
    """The ticket as JSON. ``root`` is the file system that the path was resolved to be in, ``limit_bytes`` how large
    an object the job may make of what it measures itself, ``place`` the directory of a node where the path begins."""
    ticket: dict[str, Any] = {
        "version": TICKET_VERSION,
        "transfer_id": transfer.id,
        "attempt": transfer.attempt,
        "kind": "fetch" if transfer.direction is Direction.UPLOAD else "put",
        "path_base64": base64.b64encode(transfer.real_path.encode()).decode(),
        # The same in every ticket of a transfer, also once its size is known: a renewed one must not differ.
        "size_bytes": None if transfer.is_measured_by_job else transfer.size_bytes,
        "part_size_bytes": transfer.part_size_bytes,
        "digests": dict(transfer.digests),
        "progress_url": urls.progress,
        "receipt_url": urls.receipt,
        "concurrency": concurrency,
    }
    if root is not None:
        ticket["root_base64"] = base64.b64encode(root.encode()).decode()
    if place is not None:
        ticket["place"] = place
    if transfer.part_digests:
        ticket["part_digests"] = {algorithm: list(values) for algorithm, values in transfer.part_digests.items()}
    if transfer.archive is not None:
        ticket["archive"] = transfer.archive.value
    if limit_bytes is not None:
        ticket["limit_bytes"] = limit_bytes
    if transfer.direction is Direction.UPLOAD:
        ticket["object"] = {"get_url": urls.get, "head_url": urls.head, "etag": transfer.object_etag}
        if wait_until_epoch_seconds is not None:
            ticket["wait"] = {"until_epoch_seconds": wait_until_epoch_seconds}
    else:
        ticket["upload"] = {"part_urls": list(urls.parts), "complete_url": urls.complete, "head_url": urls.head}
    return json.dumps(ticket, separators=(",", ":")).encode()


def read_receipt(content: bytes | None, transfer: Transfer) -> Receipt | None:
    """The receipt, or None when there is none yet, it is not one of this transfer, or an earlier attempt's failure.

    Whichever job proved the file, it is proved; but why an earlier one failed was judged before another was submitted.

    The file lies where its owner can write, so nothing in it is trusted further than its shape. The size of what the
    job measures is the job's word, to be compared with the object.
    """
    if content is None:
        return None
    document = _json_object(content)
    if document is None or document.get("transfer_id") != transfer.id or document.get("version") != 1:
        return None
    size = document.get("size_bytes")
    claimed_ok = document.get("ok") is True
    ok = claimed_ok and type(size) is int and _is_expected(size, transfer)
    if not ok and _attempt(document) < transfer.attempt:
        return None
    code = document.get("code")
    message = _text(document.get("message") or "", 1000)
    if claimed_ok and not ok:
        expected = "another number was" if transfer.is_measured_by_job else f"{transfer.size_bytes} were"
        code, message = "size_mismatch", f"The mover reports {_count(size)} bytes; {expected} expected."
    proved = document.get("proved")
    return Receipt(
        ok=ok,
        code=None if ok else (_text(code, 64) if code else "job_failed"),
        message=message,
        size_bytes=_count(size),
        bytes_moved=_count(document.get("bytes_moved")) + _count(document.get("bytes_resumed")),
        etag=_text(document["etag"], 200) if document.get("etag") else None,
        proved=tuple(
            {"how": _text(entry.get("how"), 64), "value": _text(entry.get("value"), 200)}
            for entry in (proved if isinstance(proved, list) else [])[:20]
            if isinstance(entry, dict)
        ),
        files=_count(document.get("files_done")),
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """The mover's latest progress."""

    bytes_done: int
    rate_bytes_per_second: float
    phase: str
    measured_bytes: int | None = None
    """What the job has measured; None where it has not yet, or nothing was to be measured."""
    files_done: int = 0
    file_count: int | None = None
    """Both of an operation."""


def read_progress(content: bytes | None, transfer: Transfer) -> Progress | None:
    """The progress document, clamped to the transfer's size; None when absent, not of this transfer or of an earlier attempt."""
    document = _json_object(content) if content is not None else None
    if document is None or document.get("transfer_id") != transfer.id or _attempt(document) < transfer.attempt:
        return None
    measured, files = None, None
    size_bytes = transfer.size_bytes or 0
    if transfer.operation is not None:
        # What cannot be told before it is done (of what is removed, say) is left out.
        measured, files = _count(document.get("size_bytes")) or None, _count(document.get("file_count")) or None
        size_bytes = measured or 2**63
    elif transfer.is_measured_by_job:
        measured = min(_count(document.get("size_bytes")), MAX_OBJECT_SIZE_BYTES) or None
        size_bytes = measured or 0
    return Progress(
        bytes_done=min(_count(document.get("bytes_done")), size_bytes),
        rate_bytes_per_second=_rate(document.get("rate_bytes_per_second")),
        phase=_text(document.get("phase"), 32),
        measured_bytes=measured,
        files_done=_count(document.get("files_done")),
        file_count=files,
    )


def _is_expected(size_bytes: int, transfer: Transfer) -> bool:
    if transfer.operation is not None:
        return 0 <= size_bytes < 2**63
    if transfer.is_measured_by_job:
        # A file may be empty; a tar stream never is.
        least = 0 if transfer.archive is None else 1
        return least <= size_bytes <= MAX_OBJECT_SIZE_BYTES
    return size_bytes == transfer.size_bytes


def _attempt(document: dict[str, Any]) -> int:
    """Of which attempt the document is; movers that were not told leave it out, and theirs was the first."""
    return _count(document.get("attempt")) or 1


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _count(value: object) -> int:
    # Beyond 63 bits it is no count of bytes, and no database would take it.
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else 0


def _rate(value: object) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63
    return float(value) if known and math.isfinite(value) else 0.0  # type: ignore[arg-type]


def _text(value: object, limit: int) -> str:
    """Bounded, without what databases and JSON cannot carry: NUL and lone surrogates."""
    return str(value)[:limit].encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
