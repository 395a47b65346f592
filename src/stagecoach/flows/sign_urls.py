"""Signs the URLs that a client may use."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import quote

from stagecoach.core import names
from stagecoach.core.transfer import Transfer
from stagecoach.flows.toolbox import Toolbox


def sign_part_urls(tools: Toolbox, transfer: Transfer, numbers: Sequence[int]) -> list[str]:
    """One presigned PUT for each of ``numbers``."""
    return tools.store.presign_parts(
        transfer.bucket,
        names.object_key(transfer.id),
        transfer.upload_id or "",
        numbers,
        audience="client",
        ttl_seconds=tools.settings.s3.ttl_seconds,
    )


def sign_complete_url(tools: Toolbox, transfer: Transfer) -> str:
    """The presigned POST that completes the multipart upload."""
    return _sign(tools, transfer, "POST", {"uploadId": transfer.upload_id or ""})


def sign_download_url(tools: Toolbox, transfer: Transfer, ttl_seconds: int | None = None) -> str:
    """The presigned GET of the staged object; a browser saves it under the file's own name (RFC 6266, RFC 8187)."""
    name = posixpath.basename(transfer.path) + (f".{transfer.archive.value}" if transfer.archive is not None else "")
    name = quote(name, safe="")
    disposition = {"response-content-disposition": f"attachment; filename*=UTF-8''{name}"}
    return _sign(tools, transfer, "GET", disposition, ttl_seconds)


def sign_head_url(tools: Toolbox, transfer: Transfer, ttl_seconds: int | None = None) -> str:
    """The presigned HEAD of the staged object."""
    return _sign(tools, transfer, "HEAD", None, ttl_seconds)


def _sign(
    tools: Toolbox,
    transfer: Transfer,
    method: Literal["GET", "HEAD", "POST"],
    query: Mapping[str, str] | None,
    ttl_seconds: int | None = None,
) -> str:
    return tools.store.presign(
        method,
        transfer.bucket,
        names.object_key(transfer.id),
        audience="client",
        ttl_seconds=ttl_seconds or tools.settings.s3.ttl_seconds,
        query=query,
    )
