"""Builds the ticket of an operation: what its job is to do, in a file of its directory. Format: ``docs/ticket.md``."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from stagecoach.core.operations import OperationOptions
from stagecoach.core.transfer import Transfer

MAX_TICKET_BYTES = 256 * 1024


def build_operation_ticket(
    transfer: Transfer, *, root: str | None, source_root: str | None, roots: Sequence[str], address: str
) -> bytes:
    """The ticket as JSON.

    ``root`` and ``source_root`` are the file systems that the two paths were resolved to be in, ``roots`` all of them,
    ``address`` where the store would have it: nothing is there, but it says whose ticket this is.
    """
    options = transfer.operation_options or OperationOptions()
    ticket = {
        "version": 1,
        "transfer_id": transfer.id,
        "attempt": transfer.attempt,
        "kind": transfer.operation.value if transfer.operation is not None else "",
        "path_base64": _encoded(transfer.real_path),
        "source_base64": None if transfer.real_source_path is None else _encoded(transfer.real_source_path),
        "root_base64": None if root is None else _encoded(root),
        "source_root_base64": None if source_root is None else _encoded(source_root),
        "roots_base64": [_encoded(one) for one in roots],
        "options": options.as_document(),
        "address": address,
    }
    return json.dumps(ticket, separators=(",", ":")).encode()


def ticket_address(content: bytes | None) -> bytes | None:
    """Where the store would have this ticket; None where it says nothing of the kind."""
    try:
        document = json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
    address = document.get("address") if isinstance(document, dict) else None
    return address.encode("utf-8", "replace") if isinstance(address, str) else None


def _encoded(path: str) -> str:
    return base64.b64encode(path.encode("utf-8", "surrogateescape")).decode()
