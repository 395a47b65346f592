"""The header ``Idempotency-Key`` (draft-ietf-httpapi-idempotency-key-header) and what the same request is."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated

from fastapi import Depends, Header, Request

from stagecoach.core.errors import InvalidRequest
from stagecoach.flows.answer_again import RepeatableRequest
from stagecoach.wire.shapes import Shape

NAME = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# RFC 9651's String, which the draft asks for; a bare key is what most clients send, and understood as well.
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def idempotency_key(
    request: Request,
    header: Annotated[
        str | None,
        Header(
            alias=NAME,
            # In quotes, each of the 255 may have a backslash before it.
            max_length=512,
            # Told only: what is no key has an error of its own.
            json_schema_extra={"pattern": r'^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$'},
            description=(
                "1 to 255 visible ASCII characters that you never use for another request. The same request sent again "
                "with the same key answers the same transfer, and makes none."
            ),
        ),
    ] = None,
) -> str | None:
    """The key, without the quotes it may stand in. Raises InvalidRequest."""
    if header is None:
        return None
    if len(request.headers.getlist(NAME)) > 1:
        raise InvalidRequest(f"{NAME} was sent more than once; send it once.")
    quoted = _QUOTED.fullmatch(header)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header
    if not _KEY.fullmatch(key) or (header.startswith('"') and not quoted):
        raise InvalidRequest(f"{NAME} must be 1 to 255 visible ASCII characters, bare or in double quotes.")
    return key


def repeatable_request(key: str | None, system: str, direction: str, request: Shape) -> RepeatableRequest | None:
    """None without a key. Two ways of writing one request (snake_case, a size as text) are the same request."""
    if key is None:
        return None
    asked = {"system": system, "direction": direction, "body": request.model_dump(mode="json", exclude_none=True)}
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return RepeatableRequest(key, hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest())


IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
