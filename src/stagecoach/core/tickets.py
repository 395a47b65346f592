"""The two documents that pass between service and mover: builds the ticket, reads the receipt. Format: ``docs/ticket.md``."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
) -> bytes:
    """The ticket as JSON. ``root`` is the file system that the target was resolved to be in."""
    ticket: dict[str, Any] = {
        "version": TICKET_VERSION,
        "transfer_id": transfer.id,
        "kind": "fetch" if transfer.direction is Direction.UPLOAD else "put",
        "path_base64": base64.b64encode(transfer.real_path.encode()).decode(),
        "size_bytes": transfer.size_bytes,
        "part_size_bytes": transfer.part_size_bytes,
        "digests": dict(transfer.digests),
        "progress_url": urls.progress,
        "receipt_url": urls.receipt,
        "concurrency": concurrency,
    }
    if transfer.direction is Direction.UPLOAD:
        ticket["object"] = {"get_url": urls.get, "head_url": urls.head, "etag": transfer.object_etag}
        if root is not None:
            ticket["root_base64"] = base64.b64encode(root.encode()).decode()
        if wait_until_epoch_seconds is not None:
            ticket["wait"] = {"until_epoch_seconds": wait_until_epoch_seconds}
    else:
        ticket["upload"] = {"part_urls": list(urls.parts), "complete_url": urls.complete, "head_url": urls.head}
    return json.dumps(ticket, separators=(",", ":")).encode()


def read_receipt(content: bytes | None, transfer: Transfer) -> Receipt | None:
    """The receipt, or None when there is none yet or it is not one of this transfer.

    The file lies where its owner can write, so nothing in it is trusted further than its shape.
    """
    if content is None:
        return None
    document = _json_object(content)
    if document is None or document.get("transfer_id") != transfer.id or document.get("version") != 1:
        return None
    size = document.get("size_bytes")
    claimed_ok = document.get("ok") is True
    ok = claimed_ok and type(size) is int and size == transfer.size_bytes
    code = document.get("code")
    message = _text(document.get("message") or "", 1000)
    if claimed_ok and not ok:
        code, message = "size_mismatch", f"The mover reports {_count(size)} bytes; {transfer.size_bytes} were expected."
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
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """The mover's latest progress."""

    bytes_done: int
    rate_bytes_per_second: float
    phase: str


def read_progress(content: bytes | None, transfer: Transfer) -> Progress | None:
    """The progress document, clamped to the transfer's size; None when absent or not of this transfer."""
    document = _json_object(content) if content is not None else None
    if document is None or document.get("transfer_id") != transfer.id:
        return None
    return Progress(
        bytes_done=min(_count(document.get("bytes_done")), transfer.size_bytes),
        rate_bytes_per_second=_rate(document.get("rate_bytes_per_second")),
        phase=_text(document.get("phase"), 32),
    )


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
