"""Signs one small S3 request in its headers (Signature Version 4), for the network check: it needs no S3 library for that."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"
_REGION, _SERVICE = "us-east-1", "s3"
# The connection has TLS of its own, and a probe's bytes mean nothing.
_PAYLOAD = "UNSIGNED-PAYLOAD"


def signed_headers(
    method: str, host: str, path: str, *, access_key_id: str, secret_access_key: str, now: datetime
) -> dict[str, str]:
    """For a request without a query; ``path`` is plain text, ``host`` as in the Host header."""
    moment = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{_REGION}/{_SERVICE}/aws4_request"
    signed = {"host": host, "x-amz-content-sha256": _PAYLOAD, "x-amz-date": moment}
    names = ";".join(signed)
    canonical = "\n".join([method, quote(path), "", *(f"{name}:{value}" for name, value in signed.items()), "", names, _PAYLOAD])
    to_sign = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"{access_key_id}/{scope}"
    return {**signed, "authorization": f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"}
