"""One ``send`` or ``send_to_store`` from its beginning to its end: looks at the way, has rclone copy, and compares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stagecoach.agent.checking import bounded
from stagecoach.agent.errands import Errand, code_of
from stagecoach.agent.journal import Ending, Entry
from stagecoach.agent.network_probes import ProbeFailed
from stagecoach.agent.parts import written_list
from stagecoach.agent.parts_at_receiver import PartsAtReceiver, ReceiverRefuses
from stagecoach.agent.parts_check import PartsCheck
from stagecoach.agent.parts_source import PartsSource, Source
from stagecoach.agent.rate_caps import CappedCopy
from stagecoach.agent.rates import Rates
from stagecoach.agent.rclone_calls import Destination
from stagecoach.agent.rclone_copy import Copy, Outcome
from stagecoach.agent.rclone_jobs import RcloneJobs
from stagecoach.agent.rclone_progress import Progress
from stagecoach.agent.rclone_words import Trouble
from stagecoach.agent.source_survey import UNFIT, Survey, survey_source
from stagecoach.agent.stopping import Work
from stagecoach.agent.threads import in_thread
from stagecoach.core.errors import CommandFailed, RcloneUnavailable
from stagecoach.wire.agent import MAX_NOTICES

if TYPE_CHECKING:
    from stagecoach.agent.sending import Sender

_LOOKS, _LOOK_SECONDS = 2, 120.0
_LOOK_PAUSE_SECONDS = 2.0
# An agent that has just started serves before it has opened its keys again.
_KEY_TRIES = 3
_KEY_PAUSE_SECONDS = 2.0
_UNREACHABLE_STEPS = frozenset({"dns", "tcp", "tls", "request"})
_MOST_WORDS = 500
STOPPED = Ending(143, "interrupted", "The copy was stopped; what has arrived whole stays there and is not sent again.")


@dataclass(frozen=True)
class Standing:
    """How far a copy is, and what people should know of it."""

    progress: Progress
    notices: tuple[str, ...] = ()
    check: dict[str, Any] | None = None


class Over(Exception):
    """It goes no further; ``ending`` says why."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.message)
        self.ending = ending


class OneSending:
    """One command's."""

    def __init__(self, sender: Sender, entry: Entry, work: Work, errand: Errand, rates: Rates) -> None:
        self._sender = sender
        self._entry = entry
        self._work = work
        self._errand = errand
        self._rates = rates
        self._cap = sender.cap_of(entry, errand)
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
        least_large_bytes = self._sender.rule.least_file_bytes if self._errand.in_parts else None
        survey = await self._unless_stopped(lambda: survey_source(source, least_large_bytes))
        self._notices = [notice.words[:_MOST_WORDS] for notice in survey.notices]
        if unfit := [notice.words for notice in survey.notices if notice.kind in UNFIT]:
            raise Over(Ending(1, "direct_unfit", f"It cannot go directly, but by way of the staging area: {unfit[0]}"))
        self._tell(Progress("running", 0, survey.size_bytes, 0, survey.files))
        sources = await self._unless_stopped(lambda: self._sender.sources(self._entry, self._errand, survey))
        # rclone takes a second to start, and the look another one.
        _, jobs = await asyncio.gather(self._look_at_the_way(survey), self._sender.jobs())
        destination = await self._destination()
        compared: int | None = 0
        if survey.large:
            # First: their list has the receiver remove the parts of earlier contents.
            await self._send_parts(jobs, source, destination, survey, sources)
        elif least_large_bytes is not None:
            await self._drop_earlier_parts()
        if survey.without_large().files or not survey.large:
            least = least_large_bytes if survey.large else None
            told = self._beside_large(survey) if survey.large else self._tell
            outcome = await self._copy(
                lambda: self._sender.begin(jobs, source, destination, self._errand, self._cap, least), told
            )
            compared = await self._compare(jobs, source, destination, outcome.survey, least)
            if not survey.large:
                survey = outcome.survey
        if survey.large:
            await self._require_same(source, survey)
            await in_thread(lambda: self._sender.forget_digests(self._entry))
        return Ending(
            0,
            None,
            f"{survey.files} files were sent" + (" and compared." if compared is not None else "."),
            self.result(
                sizeBytes=survey.size_bytes,
                files=survey.files,
                verified=compared is not None,
                comparedFiles=(compared or 0) + len(survey.large),
            ),
        )

    async def _send_parts(
        self, jobs: RcloneJobs, source: Path, destination: Destination, survey: Survey, sources: list[Source]
    ) -> None:
        """The large files."""
        endpoint, folder = self._errand.endpoint, self._errand.folder
        longest = max(each.file.part_size_bytes for each in sources)

        def told(progress: Progress) -> None:
            self._tell(replace(progress, state="running", bytes_total=survey.size_bytes, files_total=survey.files))

        served = PartsSource(sources, lambda: self._cap.bytes_per_second)
        check = PartsCheck(sources, served, lambda: PartsAtReceiver(endpoint, folder, longest))
        served.start()
        try:
            limits = self._sender.limits  # how fast it goes is for the server to keep to
            await self._copy(lambda: jobs.copy_parts(served, check, destination, limits=limits), told)
        finally:
            await in_thread(served.stop)

    def _beside_large(self, survey: Survey) -> Callable[[Progress], None]:
        """Of the other files: what is told is always of all, by which the receiver is told how much may arrive."""
        rest = survey.without_large()
        large_bytes, large_files = survey.size_bytes - rest.size_bytes, survey.files - rest.files

        def told(progress: Progress) -> None:
            self._tell(
                replace(
                    progress,
                    state="running",
                    bytes_done=large_bytes + progress.bytes_done,
                    bytes_total=survey.size_bytes,
                    files_done=large_files + progress.files_done,
                    files_total=survey.files,
                )
            )

        return told

    async def _drop_earlier_parts(self) -> None:
        """Where an earlier try sent a file in parts that is none of the large any more, the receiver is to keep none of them."""

        def drop() -> None:
            with PartsAtReceiver(self._errand.endpoint, self._errand.folder, 1) as receiver:
                if receiver.stored_list():
                    receiver.store_list(written_list([]))

        for left in reversed(range(_KEY_TRIES)):
            try:
                await self._unless_stopped(drop)
            except ReceiverRefuses as refused:
                if refused.code != "key_refused" or not left:
                    trouble = Trouble(refused.code, str(refused), retryable=True)
                    raise Over(Ending(1, code_of(trouble), trouble.message)) from None
            else:
                return
            if await self._work.stopped_within(_KEY_PAUSE_SECONDS):
                raise Over(STOPPED)

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
                raise Over(STOPPED)
        words = next((verdict.words for verdict in report.verdicts if verdict.level == "failure"), "The receiver is not reached.")
        raise self._closed(words)

    def _closed(self, words: str) -> Over:
        # Of an earlier run of the same command bytes may be there: then this is no road that was never open.
        return Over(Ending(1, "receiver_lost" if self._entry.has_sent else "receiver_unreachable", words))

    async def _destination(self) -> Destination:
        try:
            return self._errand.destination(await self._unless_stopped(lambda: self._sender.certificate_file(self._errand)))
        except ProbeFailed as failed:
            raise self._closed(f"The receiver's certificate cannot be fetched ({failed.failure.detail[:200]}).") from None

    async def _copy(self, begin: Callable[[], Copy | CappedCopy], told: Callable[[Progress], None]) -> Outcome:
        self._work.sent()
        tries = _KEY_TRIES
        while True:
            tries -= 1
            copy = begin()
            stopper = asyncio.create_task(self._stop(copy))
            try:
                outcome = await copy.run(told)
            finally:
                stopper.cancel()
            trouble = outcome.trouble
            if trouble is None:
                return outcome
            if self._work.stop.is_set():
                raise Over(STOPPED)
            if trouble.code != "key_refused" or not tries:
                raise Over(Ending(1, code_of(trouble), trouble.message))
            if await self._work.stopped_within(_KEY_PAUSE_SECONDS):
                raise Over(STOPPED)

    async def _stop(self, copy: Copy | CappedCopy) -> None:
        await self._work.stop.wait()
        copy.stop()

    async def _compare(
        self, jobs: RcloneJobs, source: Path, destination: Destination, survey: Survey, least_large_bytes: int | None
    ) -> int | None:
        """How many files were compared; None where the store does not let us."""
        if self._errand.name is not None and self._errand.name != source.name:
            self._notices.append("It was not compared again, since it has another name there; the store has checked each part.")
            return None
        comparing = asyncio.ensure_future(jobs.compare(source, destination, least_large_bytes=least_large_bytes))
        stopped = asyncio.create_task(self._work.stop.wait())
        try:
            await asyncio.wait({comparing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not comparing.done():
                raise Over(STOPPED)
            compared = comparing.result()
        except RcloneUnavailable as failure:
            raise Over(Ending(1, "interrupted", failure.message)) from None
        except CommandFailed as failure:
            if not self._errand.to_receiver:
                self._notices.append(f"It could not be compared: {failure.message}"[:_MOST_WORDS])
                return None
            raise Over(Ending(1, "receiver_lost", failure.message)) from None
        finally:
            stopped.cancel()
            comparing.cancel()
        await self._require_same(source, survey)
        if not compared.equal:
            names = ", ".join((*compared.differing, *compared.missing, *compared.unread)[:5]) or "fewer files than were sent"
            raise Over(Ending(1, "verification_failed", f"What has arrived is not what was sent: {names}."))
        return compared.compared_files

    async def _require_same(self, source: Path, survey: Survey) -> None:
        now = await in_thread(lambda: survey_source(source))
        if now.fingerprint != survey.fingerprint:
            raise Over(Ending(1, "source_changed", "The source changed while it was sent."))

    async def _unless_stopped(self, blocking: Callable[[], Any]) -> Any:
        """What it gives or raises; Over when the command is stopped before."""
        working = asyncio.ensure_future(in_thread(blocking, "stagecoach-send"))
        stopped = asyncio.create_task(self._work.stop.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Over(STOPPED)
            return working.result()
        finally:
            stopped.cancel()
            working.cancel()
