"""The questions that a copy puts to rclone, as plain data: where to, how fast, how patiently. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stagecoach.agent.parts import FOLDER

# So long a receiver may believe what it has read of a directory, digests of the files in it included.
RECEIVER_BELIEVES_SECONDS = 1
_PART_BYTES = 16 * 2**20
_PARTS_AT_ONCE = 4
# Parts are held in memory at both ends, so few files that have several; small ones cost round trips, so many of those.
_LARGE_FILES_AT_ONCE = 4
_SMALL_FILES_AT_ONCE = 16
# A part of a large file is tried again by rclone itself, or the whole file would begin anew; of small ones each attempt
# sends what is missing. All tries of one job wait for one another, so that hundreds of files would fail slowly.
_TRIES_OF_A_PART = 3
_TRIES_OF_A_FILE = 1
_CONNECT_SECONDS = 15
# Of a large file, each one PUT: nothing of them is held in memory but what is being read.
_LARGE_FILES_PARTS_AT_ONCE = 8
_LEAST_PATIENCE_SECONDS = 60.0
# The receiver reads a file again for its digest before it answers; slower disks than this are not expected.
_SLOWEST_DIGEST_BYTES_PER_SECOND = 100e6
_LONGEST_PUT = "5Gi"
_GLOB_SIGNS = re.compile(r"([\\*?\[\]{}])")


@dataclass(frozen=True, slots=True)
class Destination:
    """The receiver's end of a direct road: an S3 address with TLS, one key, one bucket, a folder in it (no slash around).

    ``certificate_file`` holds, as PEM, the one certificate that the receiver may show; None: one of a known authority.
    ``provider`` is rclone's word: ``Rclone`` for a receiver, ``Other`` for a store of any kind, whose parts it then chooses.
    """

    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    certificate_file: Path | None
    bucket: str = "data"
    folder: str = ""
    provider: str = "Rclone"

    def remote(self) -> dict[str, object]:
        """As rclone takes it. The root ends in a slash, or rclone might take the last name for a file's."""
        return {
            "type": "s3",
            "provider": self.provider,
            "endpoint": self.endpoint,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "chunk_size": f"{_PART_BYTES}B",
            "upload_cutoff": f"{_PART_BYTES}B",
            "upload_concurrency": str(_PARTS_AT_ONCE),
            "no_check_bucket": "true",
            # A receiver's digests are of what is on its disk; for a note of ours the whole file would be read before it is sent.
            "disable_checksum": "true" if self.provider == "Rclone" else "false",
            "_root": "/".join(part for part in (self.bucket, self.folder) if part) + "/",
        }


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one copy. ``rate_bytes_per_second`` is for all its files together; None: as fast as it goes.

    ``max_errors`` of one attempt, and ``patience_seconds`` without any movement, end the attempt; None: by the largest
    file, which the receiver reads again before it answers.
    """

    rate_bytes_per_second: int | None = None
    attempts: int = 5
    max_errors: int = 20
    patience_seconds: float | None = None
    look_seconds: float = 0.5

    def patience_for(self, largest_bytes: int) -> float:
        """Seconds."""
        if self.patience_seconds is not None:
            return self.patience_seconds
        return _LEAST_PATIENCE_SECONDS + largest_bytes / _SLOWEST_DIGEST_BYTES_PER_SECOND


def settings_for(destination: Destination, limits: Limits, *, largest_bytes: int, one_file: bool) -> dict[str, object]:
    """``_config`` of one job."""
    small = largest_bytes <= _PART_BYTES
    files_at_once = 1 if one_file else _SMALL_FILES_AT_ONCE if small else _LARGE_FILES_AT_ONCE
    config: dict[str, object] = {
        **({"CaCert": [str(destination.certificate_file)]} if destination.certificate_file is not None else {}),
        "LowLevelRetries": _TRIES_OF_A_FILE if small else _TRIES_OF_A_PART,
        "ConnectTimeout": f"{_CONNECT_SECONDS}s",
        "Timeout": f"{max(1, round(limits.patience_for(largest_bytes)))}s",
        "CheckSum": True,
        "Transfers": files_at_once,
        "Checkers": files_at_once,
    }
    if limits.rate_bytes_per_second is not None:
        # rclone knows a cap for each file only (its BwLimit has no effect on one job), so the files share it.
        config["BwLimitFile"] = f"{max(1, limits.rate_bytes_per_second // files_at_once)}B"
    return config


def file_copy(source: Path, destination: Destination, name: str, config: Mapping[str, object]) -> tuple[str, dict[str, Any]]:
    """Method and parameters."""
    return "operations/copyfile", {
        "srcFs": str(source.parent),
        "srcRemote": source.name,
        "dstFs": destination.remote(),
        "dstRemote": name,
        "_config": dict(config),
    }


def directory_copy(
    source: Path, destination: Destination, config: Mapping[str, object], *, least_large_bytes: int | None = None
) -> tuple[str, dict[str, Any]]:
    """Method and parameters. What is there already with the same digest is not sent again, and files of
    ``least_large_bytes`` and more are not sent at all."""
    return "sync/copy", {
        "srcFs": str(source),
        "dstFs": destination.remote(),
        "_config": dict(config),
        **_smaller_than(least_large_bytes),
    }


def parts_copy(url: str, destination: Destination, limits: Limits, *, part_size_bytes: int) -> tuple[str, dict[str, Any]]:
    """Method and parameters. All that is listed at ``url`` is sent: what has arrived is not listed there."""
    remote = destination.remote() | {
        "upload_cutoff": _LONGEST_PUT,
        # Each is compared anyway, which reads it again for its digest.
        "no_head": "true",
        "_root": f"{destination.remote()['_root']}{FOLDER}/",
    }
    # The cap is the server's: it holds for all of them together.
    uncapped = replace(limits, rate_bytes_per_second=None)
    config = settings_for(destination, uncapped, largest_bytes=part_size_bytes, one_file=False) | {
        "Transfers": _LARGE_FILES_PARTS_AT_ONCE,
        "Checkers": _LARGE_FILES_PARTS_AT_ONCE,
        # In one piece, from its beginning to its end, so that its digest can be made on the way.
        "MultiThreadStreams": 1,
        "NoCheckDest": True,
        "CheckSum": False,
    }
    return "sync/copy", {"srcFs": {"type": "http", "url": url, "_root": ""}, "dstFs": remote, "_config": config}


def comparison(
    source: Path,
    destination: Destination,
    config: Mapping[str, object],
    *,
    name: str | None,
    least_large_bytes: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """Method and parameters; of the file ``name`` in ``source`` alone, or of all below but files of ``least_large_bytes`` and
    more."""
    only = _smaller_than(least_large_bytes)
    if name is not None:
        only = {"_filter": {"IncludeRule": ["/" + _GLOB_SIGNS.sub(r"\\\1", name)]}}
    return "operations/check", {
        "srcFs": str(source),
        "dstFs": destination.remote(),
        "oneWay": True,
        "differ": True,
        "missingOnDst": True,
        "error": True,
        "_config": dict(config),
        **only,
    }


def _smaller_than(least_large_bytes: int | None) -> dict[str, object]:
    return {"_filter": {"MaxSize": f"{least_large_bytes - 1}B"}} if least_large_bytes is not None else {}
