"""One ask of a system's scheduler, for all followed jobs that are due: who may ask, what is asked, who has news.

All workers of a deployment share one budget of questions for each system (``database/system_polls.py``). Of ten thousand
jobs that wait in the queue nearly all wait as before: their rows are only put off, in one statement.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from stagecoach.core.errors import StagecoachError, SystemUnavailable, Unavailable
from stagecoach.core.polling import QUESTIONS_AN_ASK, next_look_seconds, retry_seconds
from stagecoach.core.transfer import State, Transfer
from stagecoach.core.waiting_words import why_it_waits
from stagecoach.database.followed_jobs import FollowedJob, Postponed, Sight
from stagecoach.flows.clean_up import CLEANING_LOOK_SECONDS, ON_ITS_WAY_OUT_SECONDS
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport, ReportsIncomplete

log = logging.getLogger(__name__)

ANSWER_SECONDS = 120
MAX_JOBS_AN_ASK = 20_000
# Child processes of this machine: asking costs a few file reads.
LOCAL_ASKS_PER_MINUTE = 600
# What waits as before is looked at wholly once an hour all the same: its URLs grow old.
WHOLE_LOOK_SECONDS = 3600

Answer = JobReport | StagecoachError | None
"""What the scheduler says of a job, why it could not be asked, or None: it does not know the job."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The transfers that need a look, those with a change of state first, and what the scheduler said of their jobs."""

    sights: Sequence[Sight]
    answers: Mapping[str, Answer]


@dataclass(frozen=True, slots=True)
class Turns:
    """Systems whose scheduler may be asked now and where something is due, and those where it may not be asked yet."""

    to_ask: Sequence[str]
    to_wait: Sequence[str]


async def whose_turn(tools: Toolbox) -> Turns:
    """Raises DatabaseUnavailable."""
    now, systems = tools.now(), list(tools.systems)
    may_be_asked = await tools.polls.open_systems(systems, now)
    to_ask = await tools.followed_jobs.systems_with_due(may_be_asked, now) if may_be_asked else []
    return Turns(to_ask, [system for system in systems if system not in may_be_asked])


async def ask_scheduler(tools: Toolbox, system: str) -> Asked | None:
    """None when another worker asks. What has no news is put off. Raises DatabaseUnavailable."""
    won_at = tools.now()
    budget = _asks_per_minute(tools, system)
    if not await tools.polls.win(system, won_at, budget):
        return None
    jobs = await tools.followed_jobs.due(system, won_at, MAX_JOBS_AN_ASK)
    answers, questions = await _answers(tools, system, jobs)
    await tools.polls.settle(system, won_at, tools.now(), questions, budget)
    return await _with_news(tools, system, jobs, answers)


async def ask_queue(tools: Toolbox, system: str, transfers: Sequence[Transfer]) -> Mapping[str, Answer]:
    """What a node's queue says of the jobs of ``transfers``, by transfer id.

    It is a table of our own: whoever has taken the rows asks, in one query, and no turn is waited for.
    """
    keys = {transfer.id: JobKey(transfer.job_id, transfer.job_name, transfer.owner) for transfer in transfers if transfer.job_id}
    try:
        reports = await tools.system(system).scheduler.reports(list(keys.values()))
    except StagecoachError as error:
        return dict.fromkeys(keys, error)
    except Exception as error:
        log.exception("asking the queue of %s failed", system)
        return dict.fromkeys(keys, _mistake(error))
    return {transfer_id: reports.get(key.job_id) for transfer_id, key in keys.items()}


def _asks_per_minute(tools: Toolbox, system: str) -> int:
    if tools.system(system).settings.scheduler.kind == "local":
        return LOCAL_ASKS_PER_MINUTE
    return tools.settings.worker.scheduler_asks_per_minute


async def _answers(tools: Toolbox, system: str, jobs: Sequence[FollowedJob]) -> tuple[Mapping[str, Answer], int]:
    """By transfer id; whom the questions did not reach is missing. And how many questions it took."""
    if not jobs:
        return {}, 0
    keys = [JobKey(job.job_id, job.job_name, job.owner) for job in jobs]
    trouble: StagecoachError
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reports = await tools.system(system).scheduler.reports(keys)
        return {job.transfer_id: reports.get(job.job_id) for job in jobs}, getattr(reports, "questions", 1)
    except ReportsIncomplete as error:
        answers: dict[str, Answer] = {}
        for job in jobs:
            if job.job_id in error.unanswered:
                answers[job.transfer_id] = error.causes.get(job.job_id, error)
            elif job.job_id not in error.not_asked:
                answers[job.transfer_id] = error.reports.get(job.job_id)
        return answers, error.questions
    except StagecoachError as error:
        trouble = error
    except TimeoutError:
        trouble = SystemUnavailable(f"The scheduler of {system} did not answer within {ANSWER_SECONDS} seconds.")
    except Exception as error:
        log.exception("asking the scheduler of %s failed", system)
        trouble = _mistake(error)
    return {job.transfer_id: trouble for job in jobs}, QUESTIONS_AN_ASK


def _mistake(error: Exception) -> Unavailable:
    return Unavailable(
        f"The service made a mistake while asking the scheduler ({type(error).__name__}); it is logged and tried again."
    )


async def _with_news(tools: Toolbox, system: str, jobs: Sequence[FollowedJob], answers: Mapping[str, Answer]) -> Asked:
    now, postponed, changed, others = tools.now(), [], [], []
    troubles: Counter[str] = Counter()
    for job in jobs:
        if job.transfer_id not in answers:
            continue
        answer = answers[job.transfer_id]
        if isinstance(answer, StagecoachError) and answer.retryable:
            troubles[answer.message] += 1
            postponed.append(_after_trouble(tools, job, answer, now))
        elif isinstance(answer, JobReport) and waits_as_before(job, answer, now):
            wait = next_look_seconds(job, now, tools.settings.worker.poll_min_seconds, tools.settings.worker.poll_max_seconds)
            postponed.append(Postponed(job, now + timedelta(seconds=wait), reason=job.reason))
        elif isinstance(answer, JobReport) and _goes_out_as_before(job, answer, now):
            postponed.append(Postponed(job, now + timedelta(seconds=CLEANING_LOOK_SECONDS), reason=job.reason))
        elif isinstance(answer, JobReport) and job.state is State.MOVING and answer.phase is JobPhase.RUNNING:
            others.append(job)
        else:
            changed.append(job)
    for message, count in troubles.items():
        log.warning("system %s: %s; %d transfers are looked at again later", system, message, count)
    await tools.followed_jobs.put_off(postponed, now)
    return Asked([job.sight for job in [*changed, *others]], answers)


def _goes_out_as_before(job: FollowedJob, report: JobReport, now: datetime) -> bool:
    """Whether a job whose work is done has not ended yet, and may take its time."""
    has_arrived = job.state in {State.STAGED, State.DONE}
    return has_arrived and not report.phase.is_final and now - job.changed_at < timedelta(seconds=ON_ITS_WAY_OUT_SECONDS)


def waits_as_before(job: FollowedJob, report: JobReport, now: datetime) -> bool:
    """Whether a job that has never run still waits, for the reason that the row tells already: nothing can have happened.

    Before a later attempt another job has run, whose late receipt may come at any time.
    """
    return (
        job.state is State.QUEUED
        and report.phase is JobPhase.PENDING
        and (report.state[:64], report.reason or None) == (job.job_state, job.job_reason)
        and report.restarts == job.restarts == job.failed_looks == 0
        and job.attempt == 1
        and job.reason == why_it_waits(job.job_reason)
        and (job.expires_at is None or now < job.expires_at)
        and _hour(job, job.next_check_at) == _hour(job, now)
    )


def _hour(job: FollowedJob, moment: datetime) -> int:
    """The number of the hour, which begins at another minute for each transfer: they do not all come at once."""
    offset = zlib.crc32(job.transfer_id.encode()) % WHOLE_LOOK_SECONDS
    return int(moment.timestamp() + offset) // WHOLE_LOOK_SECONDS


def _after_trouble(tools: Toolbox, job: FollowedJob, error: StagecoachError, now: datetime) -> Postponed:
    looks = job.failed_looks + 1
    wait = retry_seconds(looks, tools.settings.worker.poll_min_seconds, tools.random_bits(24) / 2**24)
    # Why it waits is for its owner to see; what has arrived waits for nothing.
    reason = job.reason if job.state in {State.STAGED, State.DONE} else error.message
    return Postponed(job, now + timedelta(seconds=wait), looks, reason)
