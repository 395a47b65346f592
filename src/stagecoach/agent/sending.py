"""The commands ``send`` and ``send_to_store``: what each is, and what the node has for carrying it out.

Nothing of the other side's key is in an argument, a log or an end.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stagecoach.agent.durable_files import write_text
from stagecoach.agent.errands import Errand, errand_of_send, errand_of_send_to_store
from stagecoach.agent.journal import Ending, Entry
from stagecoach.agent.network_check import Bounds, check_network
from stagecoach.agent.network_probes import Endpoint, pinned_certificate
from stagecoach.agent.network_report import NetworkReport
from stagecoach.agent.one_sending import OneSending, Over, Standing
from stagecoach.agent.part_digests import KeptDigests, identity_of, version_of
from stagecoach.agent.parts import PartedFile, PartRule, written_list
from stagecoach.agent.parts_source import Source
from stagecoach.agent.rate_caps import CappedCopy, RateCap, RateCaps
from stagecoach.agent.rates import Rates
from stagecoach.agent.rclone_at_hand import RcloneAtHand
from stagecoach.agent.rclone_calls import Destination, Limits
from stagecoach.agent.rclone_copy import Copy
from stagecoach.agent.rclone_jobs import RcloneJobs
from stagecoach.agent.source_survey import Survey
from stagecoach.agent.stopping import Work
from stagecoach.mover.stagecoach_mover import Failed, Handle, Place, disk_errors
from stagecoach.wire.agent import Secret
from stagecoach.wire.direct_commands import SendSpec, SendToStoreSpec

# Two minutes in which a receiver, or its agent, may start again.
LIMITS = Limits(attempts=8)
_CERTIFICATE_SECONDS = 10.0


class Sender:
    """Of one node. ``tell`` hears how far a command is; ``directory`` is for certificates of others, ``rule`` says which files go
    in parts."""

    def __init__(
        self,
        send: Path,
        directory: Path,
        kept: KeptDigests,
        rclone: RcloneAtHand,
        tell: Callable[[str, Standing], None],
        *,
        look: Callable[[Endpoint, Bounds], NetworkReport] = lambda endpoint, bounds: check_network(endpoint, bounds=bounds),
        limits: Limits = LIMITS,
        rule: PartRule | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._directory = directory
        self._writing = threading.Lock()
        self._rclone = rclone
        self._tell = tell
        self._look = look
        self.limits = limits
        self.rule = rule or PartRule()
        self._kept = kept
        self._clock = clock
        self.caps = RateCaps()

    async def send(self, entry: Entry, work: Work, secret: Secret | None) -> Ending:
        """To another node. Raises Failed, StagecoachError, ValidationError."""
        spec = SendSpec.model_validate(entry.spec)
        return await self._run(entry, work, errand_of_send(spec, secret) if secret is not None else None)

    async def send_to_store(self, entry: Entry, work: Work, secret: Secret | None) -> Ending:
        """To any store. Raises the same."""
        spec = SendToStoreSpec.model_validate(entry.spec)
        return await self._run(entry, work, errand_of_send_to_store(spec, secret) if secret is not None else None)

    async def _run(self, entry: Entry, work: Work, errand: Errand | None) -> Ending:
        if errand is None:
            return Ending(1, "interrupted", "The key did not come with the command, or was lost.")
        sending = OneSending(self, entry, work, errand, Rates(self._clock))
        try:
            return await sending.run()
        except Over as over:
            return replace(over.ending, message=over.ending.message[:1000], result=sending.result())
        finally:
            self.caps.forget(entry.id)

    def source(self, errand: Errand) -> Path:
        """Blocking. Raises Failed for what is not there, is something else, or lies behind a symbolic link."""
        path = errand.source_path.rstrip("/").encode(errors="surrogateescape")
        if {b"..", b"."} & set(path.split(b"/")) or not path.startswith(b"/") or b"\0" in path:
            raise Failed("path_refused", "The source's path names nothing below this node's send directory.")
        with disk_errors("source_missing"):
            found = Place(str(self._send)).stat(path, "source_missing")
        if errand.is_directory and not stat.S_ISDIR(found.st_mode):
            raise Failed("source_missing", "What stands at the path is no directory.")
        if not errand.is_directory and not stat.S_ISREG(found.st_mode):
            raise Failed("source_missing", "What stands at the path is no regular file.")
        return self._send / path[1:].decode(errors="surrogateescape")

    def certificate_file(self, errand: Errand) -> Path | None:
        """Blocking. What rclone is to believe the other side by; None: any known authority. Raises ProbeFailed, OSError."""
        fingerprint = errand.endpoint.certificate_sha256
        if not errand.endpoint.uses_tls or (fingerprint is None and errand.endpoint.ca_pem is None):
            return None
        self._directory.mkdir(mode=0o700, exist_ok=True)
        if fingerprint is None:
            authority = errand.endpoint.ca_pem or ""
            file = self._directory / f"{hashlib.sha256(authority.encode()).hexdigest()}.pem"
            with self._writing:
                write_text(file, authority)
            return file
        file = self._directory / f"{fingerprint}.pem"
        if not file.exists():
            pinned = pinned_certificate(errand.endpoint, _CERTIFICATE_SECONDS)
            with self._writing:
                write_text(file, pinned)
        return file

    async def jobs(self) -> RcloneJobs:
        """Of the agent's rclone."""
        return await self._rclone.jobs()

    def cap_of(self, entry: Entry, errand: Errand) -> RateCap:
        """How fast its bytes may go at this moment."""
        return self.caps.of(entry.id, errand.rate_bytes_per_second)

    def begin(
        self,
        jobs: RcloneJobs,
        source: Path,
        destination: Destination,
        errand: Errand,
        cap: RateCap,
        least_large_bytes: int | None,
    ) -> CappedCopy:
        """Of one file or of a directory, there without files of ``least_large_bytes`` and more."""

        def capped(rate: int | None) -> Copy:
            limits = replace(self.limits, rate_bytes_per_second=rate)
            if errand.name is None:
                return jobs.copy_directory(source, destination, limits=limits, least_large_bytes=least_large_bytes)
            return jobs.copy_file(source, destination, name=errand.name, limits=limits)

        return CappedCopy(capped, cap, keeps_files=errand.name is None)

    def sources(self, entry: Entry, errand: Errand, survey: Survey) -> list[Source]:
        """The large files of ``survey``, to be served in parts. Blocking. Raises OSError, and Failed for too many."""
        found = []
        for large in survey.large:
            path = errand.source_path.rstrip("/") + ("" if survey.one_file else f"/{large.path}")
            status = large.status
            part_size = self.rule.part_size_bytes(status.st_size)
            identity = identity_of(status)
            path_there = errand.name or large.path
            file = PartedFile(path_there, status.st_size, part_size, status.st_mtime_ns, version_of(identity))
            digests = self._kept.of(entry.transfer_id or entry.id, file.path, identity, part_size)
            found.append(Source(file, identity, digests, functools.partial(self._opened, os.fsencode(path))))
        written_list([each.file for each in found])
        return found

    def forget_digests(self, entry: Entry) -> None:
        """Of a transfer that has arrived. Blocking. Raises OSError."""
        self._kept.forget(entry.transfer_id or entry.id)

    def _opened(self, path: bytes) -> Handle:
        with disk_errors("source_missing"):
            return Handle(Place(str(self._send)).open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, "source_missing"))

    def tell(self, entry: Entry, standing: Standing) -> None:
        """Of how far a command is."""
        self._tell(entry.id, standing)

    def look(self, endpoint: Endpoint, bounds: Bounds) -> NetworkReport:
        """At the way there. Blocking."""
        return self._look(endpoint, bounds)
