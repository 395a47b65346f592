"""S3 URLs that carry their own permission: Signature Version 4 in the query, written out by hand.

botocore needs seconds of CPU for the 10,000 part URLs of one upload and would hold the event loop all that time; this
needs hundredths. The rules are those of the Amazon S3 API Reference, "Authenticating Requests: Using Query Parameters
(AWS Signature Version 4)", always with path-style addresses. Every URL is equal, character for character, to what
botocore makes; the unit tests hold the two together. It knows nothing of Stagecoach but knows how many seconds S3
lets a URL live.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, urlsplit

MAX_TTL_SECONDS = 7 * 24 * 3600
_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE = "s3"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PART_NUMBER = "partNumber"
_UPLOAD_ID = "uploadId"


class Presigner:
    """Signs for one address of a store with one key. No I/O; ``clock`` must give times that know their zone."""

    def __init__(
        self,
        base_url: str,
        *,
        access_key_id: str,
        secret_access_key: str,
        region: str,
        clock: Callable[[], datetime],
    ) -> None:
        parts = urlsplit(base_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._base_path = parts.path.rstrip("/")
        self._host = _host_header(base_url)
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self._region = region
        self._clock = clock

    def presign(
        self,
        method: str,
        bucket: str,
        key: str,
        *,
        ttl_seconds: int,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """One URL. ``query`` goes into it in the order given, before the signature's own parameters.

        ``headers`` (names in lower case) must be sent by whoever uses the URL, as they are here.
        """
        signed = {"host": self._host, **(headers or {})}
        stamp = self._stamp(ttl_seconds, sorted(signed))
        path = self._path(bucket, key)
        own = [(_quoted(name), _quoted(value)) for name, value in (query or {}).items()]
        # The signature covers the parameters sorted as they are encoded; the URL keeps the order they were given in.
        sorted_query = _joined(sorted([*own, *stamp.parameters]))
        canonical = f"{method}\n{path}\n{sorted_query}\n{_canonical_tail(signed)}"
        signature = stamp.signature(hashlib.sha256(canonical.encode()).hexdigest())
        return f"{self._origin}{path}?{_joined([*own, *stamp.parameters])}&X-Amz-Signature={signature}"

    def presign_parts(self, bucket: str, key: str, upload_id: str, numbers: Sequence[int], *, ttl_seconds: int) -> list[str]:
        """One PUT URL for each part number, in the order given."""
        stamp = self._stamp(ttl_seconds)
        path = self._path(bucket, key)
        upload = f"{_UPLOAD_ID}={_quoted(upload_id)}"
        signed = _joined(stamp.parameters)
        # In sorted order everything before the part's number ("X-Amz-…" < "partNumber" < "uploadId") is the same for
        # all parts, so it is hashed once and that state copied for each.
        common = hashlib.sha256(f"PUT\n{path}\n{signed}&{_PART_NUMBER}=".encode())
        rest = f"&{upload}\n{_canonical_tail({'host': self._host})}".encode()
        before = f"{self._origin}{path}?{upload}&{_PART_NUMBER}="
        after = f"&{signed}&X-Amz-Signature="
        urls = []
        for number in numbers:
            digest = common.copy()
            digest.update(b"%d%b" % (number, rest))
            urls.append(f"{before}{number}{after}{stamp.signature(digest.hexdigest())}")
        return urls

    def _path(self, bucket: str, key: str) -> str:
        # Slashes of a key stay; a tenant's colon ("tenant:bucket") is encoded, as botocore does.
        return f"{self._base_path}/{_quoted(bucket)}/{quote(key, safe='/~')}"

    def _stamp(self, ttl_seconds: int, signed_headers: Sequence[str] = ("host",)) -> _Stamp:
        if not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
            raise ValueError(f"a presigned URL lives between 1 and {MAX_TTL_SECONDS} seconds, not {ttl_seconds}")
        now = self._clock()
        return _Stamp(self._access_key_id, self._secret_access_key, self._region, now, ttl_seconds, signed_headers)


class _Stamp:
    """What all URLs signed at one moment have in common."""

    __slots__ = ("_prefix", "_signing_key", "parameters")

    def __init__(
        self, access_key_id: str, secret: str, region: str, now: datetime, ttl_seconds: int, signed_headers: Sequence[str]
    ) -> None:
        time = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        date = time[:8]
        scope = f"{date}/{region}/{_SERVICE}/aws4_request"
        self._signing_key = _signing_key(secret, date, region, _SERVICE)
        self._prefix = f"{_ALGORITHM}\n{time}\n{scope}\n"
        self.parameters = [
            ("X-Amz-Algorithm", _ALGORITHM),
            ("X-Amz-Credential", _quoted(f"{access_key_id}/{scope}")),
            ("X-Amz-Date", time),
            ("X-Amz-Expires", str(ttl_seconds)),
            ("X-Amz-SignedHeaders", _quoted(";".join(signed_headers))),
        ]

    def signature(self, canonical_digest: str) -> str:
        """Of the canonical request whose SHA-256 this is."""
        return hmac.digest(self._signing_key, (self._prefix + canonical_digest).encode(), "sha256").hex()


@lru_cache(maxsize=16)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key of a day: four rounds of HMAC, worth keeping."""
    key = f"AWS4{secret}".encode()
    for word in (date, region, service, "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    return key


def _host_header(base_url: str) -> str:
    """What HTTP clients send: lower case, and no port where it is the scheme's own."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    if parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme):
        return host
    return f"{host}:{parts.port}"


def _canonical_tail(headers: Mapping[str, str]) -> str:
    """The signed headers, an empty line, their names, and the content, which a URL cannot know."""
    rows = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    return f"{rows}\n{';'.join(sorted(headers))}\nUNSIGNED-PAYLOAD"


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


def _joined(pairs: Sequence[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs)
