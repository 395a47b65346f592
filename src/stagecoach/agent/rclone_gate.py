"""What may be asked of rclone: it sees the whole disk and can run commands, so all that is not named here is refused.

Local paths must lie below the node's own directories after links are followed; the other end must be an S3 address, a
receiver's with TLS. The agent's own servers of parts are admitted by their very addresses. Pure but for the links.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from stagecoach.core.errors import PathRefused, PermissionRefused

METHODS = frozenset(
    {"core/bwlimit", "core/stats", "core/stats-delete", "core/transferred", "core/version", "fscache/clear", "job/status"}
    | {"job/stop", "operations/check", "operations/copyfile", "sync/copy"}
)
_PLACES = frozenset({"srcFs", "dstFs"})
_NAMES = frozenset({"srcRemote", "dstRemote"})
_CONFIG = frozenset(
    {"BwLimitFile", "CaCert", "Checkers", "CheckSum", "ConnectTimeout", "LowLevelRetries", "MultiThreadStreams"}
    | {"NoCheckDest", "Timeout", "Transfers"}
)
_REMOTE = frozenset(
    {"type", "provider", "endpoint", "access_key_id", "secret_access_key", "chunk_size", "upload_cutoff"}
    | {"upload_concurrency", "no_check_bucket", "disable_checksum", "no_head", "use_multipart_etag", "_root"}
)
_FILTER = frozenset({"IncludeRule", "MaxSize"})
_SECRETS = frozenset({"secret_access_key"})


def require_allowed(
    method: str, parameters: Mapping[str, object], roots: Sequence[Path], served: Collection[str] = frozenset()
) -> None:
    """``served`` are the addresses of the agent's own servers, to be read from. Raises PermissionRefused for what is never
    asked, PathRefused for a path outside ``roots``."""
    if method not in METHODS:
        raise PermissionRefused(f"rclone is not asked for {method!r}.")
    for name, value in parameters.items():
        if name == "srcFs" and any(value == {"type": "http", "url": url, "_root": ""} for url in served):
            continue
        if name in _PLACES:
            _require_place(value, roots)
        elif name in _NAMES:
            _require_name(value)
        elif name == "_config":
            _require_names(value, _CONFIG, "setting")
        elif name == "_filter":
            _require_names(value, _FILTER, "filter")


def secrets_in(value: object) -> Iterator[str]:
    """Every secret that the parameters carry."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in _SECRETS and isinstance(inner, str):
                yield inner
            else:
                yield from secrets_in(inner)


def _require_place(value: object, roots: Sequence[Path]) -> None:
    if isinstance(value, Mapping):
        _require_names(value, _REMOTE, "part of a remote")
        # A store that the node's owner has typed may be a plain one; a receiver never is.
        schemes = ("https://", "http://") if value.get("provider") == "Other" else ("https://",)
        if value.get("type") != "s3" or not str(value.get("endpoint", "")).startswith(schemes):
            raise PermissionRefused("rclone is sent to S3 addresses with TLS only.")
        return
    # A text may also be a remote of rclone ("sftp,host=…:") unless it is an absolute path.
    if not isinstance(value, str) or not value.startswith("/"):
        raise PathRefused("A local place is an absolute path.")
    place = Path(value).resolve()
    if not any(place.is_relative_to(root.resolve()) for root in roots):
        raise PathRefused(f"{value}: it is outside the directories of this node, or a link leads out of them.")


def _require_name(value: object) -> None:
    if not isinstance(value, str) or not value or value.startswith("/") or ".." in value.split("/") or "\0" in value:
        raise PathRefused(f"{value!r} is no path below a directory.")


def _require_names(value: object, allowed: frozenset[str], what: str) -> None:
    if not isinstance(value, Mapping):
        raise PermissionRefused(f"A {what} of rclone has a name and a value.")
    if strangers := set(value) - allowed:
        raise PermissionRefused(f"rclone is not told of the {what} {sorted(strangers)[0]!r}.")
