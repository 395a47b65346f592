"""The commands ``send`` and ``send_to_store``: looks at the way, has rclone copy, compares, and says how it went.

Nothing of the other side's key is in an argument, a log or an end.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stagecoach.agent.checking import bounded
from stagecoach.agent.durable_files import write_text
from stagecoach.agent.errands import Errand, code_of, errand_of_send, errand_of_send_to_store
from stagecoach.agent.journal import Ending, Entry
from stagecoach.agent.network_check import Bounds, check_network
from stagecoach.agent.network_probes import Endpoint, ProbeFailed, pinned_certificate
from stagecoach.agent.network_report import NetworkReport
from stagecoach.agent.rate_caps import CappedCopy, RateCaps
from stagecoach.agent.rates import Rates
from stagecoach.agent.rclone_at_hand import RcloneAtHand
from stagecoach.agent.rclone_calls import Destination, Limits
from stagecoach.agent.rclone_jobs import Copy, Outcome, RcloneJobs
from stagecoach.agent.rclone_progress import Progress
from stagecoach.agent.source_survey import UNFIT, Survey, survey_source
from stagecoach.agent.stopping import Work
from stagecoach.agent.threads import in_thread
from stagecoach.core.errors import CommandFailed, RcloneUnavailable
from stagecoach.mover.stagecoach_mover import Failed, Place, disk_errors
from stagecoach.wire.agent import MAX_NOTICES, Secret
from stagecoach.wire.direct_commands import SendSpec, SendToStoreSpec

_log = logging.getLogger(__name__)

# Two minutes in which a receiver, or its agent, may start again.
LIMITS = Limits(attempts=8)
_LOOKS, _LOOK_SECONDS = 2, 120.0
_LOOK_PAUSE_SECONDS = 2.0
_CERTIFICATE_SECONDS = 10.0
# An agent that has just started serves before it has opened its keys again.
_KEY_TRIES = 3
_KEY_PAUSE_SECONDS = 2.0
_UNREACHABLE_STEPS = frozenset({"dns", "tcp", "tls", "request"})
_MOST_WORDS = 500
_STOPPED = Ending(143, "interrupted", "The copy was stopped; what has arrived whole stays there and is not sent again.")


@dataclass(frozen=True)
class Standing:
    """How far a copy is, and what people should know of it."""

    progress: Progress
    notices: tuple[str, ...] = ()
    check: dict[str, Any] | None = None


class _Over(Exception):
    """It goes no further; ``ending`` says why."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.message)
        self.ending = ending


class Sender:
    """Of one node. ``tell`` hears how far a command is; ``directory`` is for certificates of others."""

    def __init__(
        self,
        send: Path,
        directory: Path,
        rclone: RcloneAtHand,
        tell: Callable[[str, Standing], None],
        *,
        look: Callable[[Endpoint, Bounds], NetworkReport] = lambda endpoint, bounds: check_network(endpoint, bounds=bounds),
        limits: Limits = LIMITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._directory = directory
        self._writing = threading.Lock()
        self._rclone = rclone
        self._tell = tell
        self._look = look
        self._limits = limits
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
        sending = _Sending(self, entry, work, errand, Rates(self._clock))
        try:
            return await sending.run()
        except _Over as over:
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

    def begin(self, jobs: RcloneJobs, source: Path, destination: Destination, errand: Errand, command_id: str) -> CappedCopy:
        """Of one file or of a directory."""

        def capped(rate: int | None) -> Copy:
            limits = replace(self._limits, rate_bytes_per_second=rate)
            if errand.name is None:
                return jobs.copy_directory(source, destination, limits=limits)
            return jobs.copy_file(source, destination, name=errand.name, limits=limits)

        cap = self.caps.of(command_id, errand.rate_bytes_per_second)
        return CappedCopy(capped, cap, keeps_files=errand.name is None)

    def tell(self, entry: Entry, standing: Standing) -> None:
        """Of how far a command is."""
        self._tell(entry.id, standing)

    def look(self, endpoint: Endpoint, bounds: Bounds) -> NetworkReport:
        """At the way there. Blocking."""
        return self._look(endpoint, bounds)


class _Sending:
    """One command's."""

    def __init__(self, sender: Sender, entry: Entry, work: Work, errand: Errand, rates: Rates) -> None:
        self._sender = sender
        self._entry = entry
        self._work = work
        self._errand = errand
        self._rates = rates
        self._notices: list[str] = []
        self._check: dict[str, Any] | None = None
        self._progress = Progress("running", 0, 0, 0, 0)

    def result(self, **more: Any) -> dict[str, Any]:
        """Of any end, good or bad."""
        rates = self._rates.ended(self._progress.bytes_done)
        return {"check": self._check, "rates": rates, "notices": self._notices[:MAX_NOTICES], **more}

    async def run(self) -> Ending:
        source = await self._unless_stopped(lambda: self._sender.source(self._errand))
        self._work.started()
        survey = await self._unless_stopped(lambda: survey_source(source))
        self._notices = [notice.words[:_MOST_WORDS] for notice in survey.notices]
        if unfit := [notice.words for notice in survey.notices if notice.kind in UNFIT]:
            raise _Over(Ending(1, "direct_unfit", f"It cannot go directly, but by way of the staging area: {unfit[0]}"))
        self._tell(Progress("running", 0, survey.size_bytes, 0, survey.files))
        await self._look_at_the_way(survey)
        destination = await self._destination()
        jobs = await self._sender.jobs()
        outcome = await self._copy(jobs, source, destination)
        compared = await self._compare(jobs, source, destination, outcome.survey)
        return Ending(
            0,
            None,
            f"{survey.files} files were sent" + (" and compared." if compared is not None else "."),
            self.result(
                sizeBytes=outcome.survey.size_bytes,
                files=outcome.survey.files,
                verified=compared is not None,
                comparedFiles=compared or 0,
            ),
        )

    def _tell(self, progress: Progress) -> None:
        self._progress = progress
        self._rates.add(progress.bytes_done)
        self._sender.tell(self._entry, Standing(progress, tuple(self._notices[:MAX_NOTICES]), self._check))

    async def _look_at_the_way(self, survey: Survey) -> None:
        bounds = self._errand.bounds(survey.size_bytes)
        for left in reversed(range(_LOOKS)):
            try:  # each wait in it is bounded, but answers may come a byte at a time
                async with asyncio.timeout(_LOOK_SECONDS):
                    report = await self._unless_stopped(lambda: self._sender.look(self._errand.endpoint, bounds))
            except TimeoutError:
                raise self._closed("The receiver hardly answers: the look at the way took too long.") from None
            self._check = {**bounded(report), "probeBytesPerSecond": report.put_bytes_per_second}
            self._tell(self._progress)
            failure = report.failure
            if failure is None or failure.step not in _UNREACHABLE_STEPS:
                return  # a probe that took too long is no reason not to send
            if not left or failure.code in {"wrong_certificate", "wrong_key"}:
                break
            if await self._work.stopped_within(_LOOK_PAUSE_SECONDS):
                raise _Over(_STOPPED)
        words = next((verdict.words for verdict in report.verdicts if verdict.level == "failure"), "The receiver is not reached.")
        raise self._closed(words)

    def _closed(self, words: str) -> _Over:
        # Of an earlier run of the same command bytes may be there: then this is no road that was never open.
        return _Over(Ending(1, "receiver_lost" if self._entry.has_sent else "receiver_unreachable", words))

    async def _destination(self) -> Destination:
        try:
            return self._errand.destination(await self._unless_stopped(lambda: self._sender.certificate_file(self._errand)))
        except ProbeFailed as failed:
            raise self._closed(f"The receiver's certificate cannot be fetched ({failed.failure.detail[:200]}).") from None

    async def _copy(self, jobs: RcloneJobs, source: Path, destination: Destination) -> Outcome:
        self._work.sent()
        tries = _KEY_TRIES
        while True:
            tries -= 1
            copy = self._sender.begin(jobs, source, destination, self._errand, self._entry.id)
            stopper = asyncio.create_task(self._stop(copy))
            try:
                outcome = await copy.run(self._tell)
            finally:
                stopper.cancel()
            trouble = outcome.trouble
            if trouble is None:
                return outcome
            if self._work.stop.is_set():
                raise _Over(_STOPPED)
            if trouble.code != "key_refused" or not tries:
                raise _Over(Ending(1, code_of(trouble), trouble.message))
            if await self._work.stopped_within(_KEY_PAUSE_SECONDS):
                raise _Over(_STOPPED)

    async def _stop(self, copy: CappedCopy) -> None:
        await self._work.stop.wait()
        copy.stop()

    async def _compare(self, jobs: RcloneJobs, source: Path, destination: Destination, survey: Survey) -> int | None:
        """How many files were compared; None where the store does not let us."""
        if self._errand.name is not None and self._errand.name != source.name:
            self._notices.append("It was not compared again, since it has another name there; the store has checked each part.")
            return None
        comparing = asyncio.ensure_future(jobs.compare(source, destination))
        stopped = asyncio.create_task(self._work.stop.wait())
        try:
            await asyncio.wait({comparing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not comparing.done():
                raise _Over(_STOPPED)
            compared = comparing.result()
        except RcloneUnavailable as failure:
            raise _Over(Ending(1, "interrupted", failure.message)) from None
        except CommandFailed as failure:
            if not self._errand.to_receiver:
                self._notices.append(f"It could not be compared: {failure.message}"[:_MOST_WORDS])
                return None
            raise _Over(Ending(1, "receiver_lost", failure.message)) from None
        finally:
            stopped.cancel()
            comparing.cancel()
        now = await in_thread(lambda: survey_source(source))
        if now.fingerprint != survey.fingerprint:
            raise _Over(Ending(1, "source_changed", "The source changed while it was sent."))
        if not compared.equal:
            names = ", ".join((*compared.differing, *compared.missing, *compared.unread)[:5]) or "fewer files than were sent"
            raise _Over(Ending(1, "verification_failed", f"What has arrived is not what was sent: {names}."))
        return compared.compared_files

    async def _unless_stopped(self, blocking: Callable[[], Any]) -> Any:
        """What it gives or raises; _Over when the command is stopped before."""
        working = asyncio.ensure_future(in_thread(blocking, "stagecoach-send"))
        stopped = asyncio.create_task(self._work.stop.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise _Over(_STOPPED)
            return working.result()
        finally:
            stopped.cancel()
            working.cancel()
