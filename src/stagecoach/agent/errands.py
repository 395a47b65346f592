"""What a command ``send`` or ``send_to_store`` asks for, in the terms of a copy. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from stagecoach.agent.network_check import Bounds
from stagecoach.agent.network_probes import Endpoint
from stagecoach.agent.rclone_calls import Destination
from stagecoach.agent.rclone_words import Trouble
from stagecoach.wire.agent import Secret
from stagecoach.wire.direct_commands import SendSpec, SendToStoreSpec

_MOST_PROBE_BYTES = 64 * 2**20
# A probe costs time that the copy could use: no more of the bytes than one in so many, and a second each way.
_PROBED_PART = 32
_PROBE_SECONDS = 1.0
_LEAST_PROBE_BYTES = 256 * 1024

# The receiver answered before, so these say that it does not any more.
_LOST = frozenset({"receiver_silent", "receiver_interrupted", "port_closed", "dns_failed", "key_refused", "certificate_wrong"})


@dataclass(frozen=True)
class Errand:
    """``name`` is the file's at the other end; None of a directory."""

    source_path: str
    is_directory: bool
    endpoint: Endpoint
    folder: str
    name: str | None
    rate_bytes_per_second: int | None
    to_receiver: bool
    in_parts: bool = False
    """Whether who receives can join large files that come in parts."""

    def destination(self, certificate_file: Path | None) -> Destination:
        """As rclone is told."""
        scheme = "https" if self.endpoint.uses_tls else "http"
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        return Destination(
            f"{scheme}://{host}:{self.endpoint.port}",
            self.endpoint.access_key_id or "",
            self.endpoint.secret_access_key or "",
            certificate_file,
            bucket=self.endpoint.bucket,
            folder=self.folder.strip("/"),
            provider="Rclone" if self.to_receiver else "Other",
        )

    def bounds(self, size_bytes: int) -> Bounds:
        """Of the look at the way, by how much is to be sent. Nothing is written for a probe into a store of somebody's."""
        probe = min(_MOST_PROBE_BYTES, size_bytes // _PROBED_PART) if self.to_receiver else 0
        return Bounds(
            connects=3,
            round_trips=5,
            probe_bytes=probe if probe >= _LEAST_PROBE_BYTES else 0,
            probe_seconds=_PROBE_SECONDS,
        )


def errand_of_send(spec: SendSpec, secret: Secret) -> Errand:
    """To another node's receiver. A file keeps its own name on the way: what it is called is decided where it arrives."""
    return replace(_errand(spec, secret, None, to_receiver=True), in_parts=spec.in_parts)


def errand_of_send_to_store(spec: SendToStoreSpec, secret: Secret) -> Errand:
    """To any store."""
    errand = _errand(spec, secret, spec.file_name, to_receiver=False)
    return replace(errand, endpoint=replace(errand.endpoint, uses_tls=spec.endpoint.tls, ca_pem=spec.endpoint.ca_pem))


def _errand(spec: SendSpec | SendToStoreSpec, secret: Secret, file_name: str | None, *, to_receiver: bool) -> Errand:
    return Errand(
        source_path=spec.source_path,
        is_directory=spec.is_directory,
        endpoint=Endpoint(
            spec.endpoint.host,
            spec.endpoint.port,
            certificate_sha256=spec.endpoint.certificate_sha256,
            access_key_id=secret.access_key_id,
            secret_access_key=secret.secret_access_key,
            bucket=spec.bucket,
        ),
        folder=spec.folder,
        name=None if spec.is_directory else file_name or spec.source_path.rstrip("/").rpartition("/")[2],
        rate_bytes_per_second=spec.rate_limit_bytes_per_second,
        to_receiver=to_receiver,
    )


def code_of(trouble: Trouble) -> str:
    """As the service knows it, of a copy whose receiver had answered before."""
    if trouble.code in _LOST:
        return "receiver_lost"
    return {"no_space": "receiver_full", "rclone_unavailable": "interrupted", "stopped": "interrupted"}.get(
        trouble.code, trouble.code
    )
