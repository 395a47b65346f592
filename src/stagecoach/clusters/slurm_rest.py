"""The Compute port on slurmrestd. Each question carries a token of its own, signed with Slurm's key, for the user who asks.

What slurmrestd cannot do (heed a script's #SBATCH lines, give a job's script, run a command in a job) the commands over
SSH do.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import OctKey

from stagecoach.clusters import slurm_rest_answers as answers
from stagecoach.clusters.ssh_login import checked_username
from stagecoach.core.breaker import Breaker
from stagecoach.core.errors import (
    FileMissing,
    InvalidRequest,
    JobNotFound,
    StagecoachError,
    SubmissionRefused,
    SubmissionUncertain,
    SystemUnavailable,
)
from stagecoach.core.names import is_account_name
from stagecoach.ports.compute import (
    MAX_SCRIPT_BYTES,
    Compute,
    JobDescription,
    JobPapers,
    Node,
    Partition,
    ProjectAccount,
    Reservation,
    SeenJob,
    WantedJobs,
    job_not_found,
    require_job_id,
)
from stagecoach.ports.files import Files
from stagecoach.settings.systems import RestSettings

TOKEN_SECONDS = 120
# A job sees what it is given and no more; a login shell would start with these.
SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
# Nobody was reached, or nothing came back: signs that nobody's question is why.
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)
_DIRECTIVE = re.compile(r"^#SBATCH\b", re.MULTILINE)


class _Unreadable(SystemUnavailable):
    """An answer, but none of slurmrestd's."""


class SlurmRest:
    """Slurm on one system, for its users. ``over_ssh`` does what is not in the API, ``files`` are the same system's."""

    def __init__(
        self,
        name: str,
        settings: RestSettings,
        over_ssh: Compute,
        files: Files,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._settings = settings
        self._over_ssh = over_ssh
        self._files = files
        self._wall_clock = wall_clock
        self._breaker = Breaker(SystemUnavailable, clock, callers_needed=2)
        # No proxy of the environment's: the token in each question is for this server only.
        self._http = httpx.AsyncClient(
            base_url=settings.url, timeout=settings.timeout_seconds, trust_env=False, transport=transport
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(self, username: str, job: JobDescription) -> str:
        if job.account is not None and not is_account_name(job.account):
            raise InvalidRequest("The account may hold letters, digits, '_', '.' and '-', at most 64 of them.")
        script = job.script if job.script is not None else await self._script(username, job.script_path or "")
        if not script.startswith("#!"):
            raise SubmissionRefused("This does not look like a batch script: its first line must begin with #!/.")
        # slurmrestd would take these too; the words are sbatch's.
        if "\r\n" in script:
            raise SubmissionRefused("Batch script contains DOS line breaks (\\r\\n) instead of expected UNIX line breaks (\\n).")
        if "\0" in script:
            raise SubmissionRefused("The SLURM controller does not allow scripts that contain a NULL character '\\0'.")
        if _DIRECTIVE.search(script):
            # slurmrestd would run it and take no notice of what it asks for.
            return await self._over_ssh.submit(username, job)
        home = await self._files.home(username)
        usual = {"PATH": SEARCH_PATH, "HOME": home, "USER": username, "LOGNAME": username}
        body = answers.submission(_named(job), script, {**usual, **job.environment}, self._settings.api_version)
        # Not a gate, which lets one caller through after a rest: how long this one takes may be the user's own doing.
        self._breaker.require(username)
        try:
            answer = await self._ask("POST", username, "slurm", "job/submit", json=body)
        except httpx.TransportError as error:
            if isinstance(error, _NO_CONNECTION):
                self._breaker.broke(self._silence(), username)
            if isinstance(error, (*_NO_CONNECTION, httpx.PoolTimeout)):
                raise self._unreached(error) from error
            raise SubmissionUncertain(
                f"The answer to the submission was lost ({type(error).__name__}). Look for the job before you submit it again."
            ) from error
        except SystemUnavailable as error:
            if answers.is_silence(error):
                self._breaker.broke(self._silence(), username)
            raise answers.refusal(error) from error
        if not answer.get("job_id"):
            raise SubmissionUncertain("The answer to the submission names no job. Look for the job before you submit it again.")
        self._breaker.worked(username)
        return str(answer["job_id"])

    async def list_jobs(self, username: str, wanted: WantedJobs) -> list[SeenJob]:
        since = int(self._wall_clock()) - wanted.window_seconds
        # v0.0.38 knows no users here; whose they are is looked at below.
        parameters = {"start_time": f"uts{since}"}
        queued, accounted = await asyncio.gather(
            self._question(username, "slurm", "jobs"), self._accounting(username, parameters)
        )
        found = {job.report.job_id: job for _, job in [*self._ended(accounted), *self._queued(queued)]}
        return sorted(
            (
                job
                for job in found.values()
                if (wanted.of_everyone or job.report.user == username)
                and wanted.account in {None, job.report.account}
                and wanted.name in {None, job.report.name}
                and (not job.report.phase.is_final or (job.report.end_time or 0) >= since)
            ),
            key=lambda job: int(job.report.job_id),
        )

    async def show_job(self, username: str, job_id: str, *, of_everyone: bool) -> list[SeenJob]:
        require_job_id(job_id)
        found: list[tuple[str, SeenJob]] = []
        for service, read in (("slurm", self._queued), ("slurmdb", self._ended)):
            try:
                found = list(read(await self._question(username, service, f"job/{job_id}")))
            except JobNotFound:
                continue
            jobs = [job for array, job in found if job_id in {array, job.report.job_id}]
            if jobs := [job for job in jobs if of_everyone or job.report.user == username]:
                return sorted(jobs, key=lambda job: (job.report.phase.is_final, int(job.report.job_id)))
        raise job_not_found()

    async def show_papers(self, username: str, job_id: str) -> JobPapers:
        return await self._over_ssh.show_papers(username, job_id)

    async def cancel(self, username: str, job_id: str) -> None:
        require_job_id(job_id)
        try:
            await self._question(username, "slurm", f"job/{job_id}", method="DELETE")
        except StagecoachError as error:
            if not answers.has_ended(error):
                raise

    async def attach(self, username: str, job_id: str, command: str) -> None:
        await self._over_ssh.attach(username, job_id, command)

    async def nodes(self, username: str) -> list[Node]:
        return [answers.node(one) for one in _objects(await self._question(username, "slurm", "nodes"), "nodes")]

    async def partitions(self, username: str, *, with_hidden: bool) -> list[Partition]:
        found = _objects(await self._question(username, "slurm", "partitions"), "partitions")
        hidden = [one for one in found if "HIDDEN" in str(one.get("flags")).upper()]
        return [answers.partition(one) for one in found if with_hidden or one not in hidden]

    async def reservations(self, username: str) -> list[Reservation]:
        found = _objects(await self._question(username, "slurm", "reservations"), "reservations")
        return [answers.reservation(one) for one in found]

    async def accounts(self, username: str) -> list[ProjectAccount] | None:
        found = _objects(await self._question(username, "slurmdb", f"user/{checked_username(username)}"), "users")
        return answers.accounts(found[0]) if found else []

    async def ping(self, username: str) -> str:
        answer = await self._question(username, "slurm", "ping")
        up = [one for one in _objects(answer, "pings") if str(one.get("ping", one.get("pinged"))).upper() == "UP"]
        if not up:
            raise SystemUnavailable(f"Slurm on {self._name} does not answer slurmrestd.")
        meta = answer.get("meta") if isinstance(answer.get("meta"), dict) else {}
        about = (meta or {}).get("Slurm") or (meta or {}).get("slurm") or {}
        return f"slurm {about.get('release', '')} answers."

    async def _accounting(self, username: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        try:
            return await self._question(username, "slurmdb", "jobs", parameters)
        except JobNotFound:
            return {"jobs": []}

    async def _question(
        self,
        username: str,
        service: str,
        what: str,
        parameters: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
    ) -> dict[str, Any]:
        with self._breaker.gate(username):
            try:
                answer = await self._ask(method, username, service, what, params=parameters)
            except httpx.TransportError as error:
                # No connection is free: that is our own crowd.
                if not isinstance(error, httpx.PoolTimeout):
                    self._breaker.broke(self._silence(), username)
                raise self._unreached(error) from error
            except SystemUnavailable as error:
                # Other words than that nobody was reached may be about what was asked for.
                if isinstance(error, _Unreadable) or answers.is_silence(error):
                    self._breaker.broke(self._silence(), username)
                raise
            except StagecoachError:
                self._breaker.worked(username)
                raise
            self._breaker.worked(username)
            return answer

    async def _ask(self, method: str, username: str, service: str, what: str, **more: Any) -> dict[str, Any]:
        answer = await self._http.request(
            method, f"/{service}/{self._settings.api_version}/{what}", headers=self._headers(username), **more
        )
        if answer.status_code == 404 and not answer.content.strip().startswith(b"{"):
            raise SystemUnavailable(f"slurmrestd of {self._name} knows no {self._settings.api_version}: see scheduler.rest.")
        try:
            # Ten thousand jobs are forty megabytes; others are served meanwhile.
            document = await asyncio.to_thread(answer.json)
        except ValueError as error:
            kind = SystemUnavailable if answer.status_code == 401 else _Unreadable
            raise kind(f"slurmrestd of {self._name} answered {answer.status_code} without JSON.") from error
        if (trouble := answers.trouble(document)) is not None:
            raise trouble
        if answer.status_code != 200 or not isinstance(document, dict):
            raise _Unreadable(f"slurmrestd of {self._name} answered {answer.status_code}.")
        return document

    def _headers(self, username: str) -> dict[str, str]:
        now = int(self._wall_clock())
        claims = {"iat": now, "exp": now + TOKEN_SECONDS, "sun": checked_username(username)}
        try:
            key = OctKey.import_key(Path(self._settings.jwt_key_file).read_bytes())
        except OSError as error:
            raise SystemUnavailable(
                f"The key of slurmrestd's tokens on {self._name} cannot be read ({error.strerror})."
            ) from error
        return {"X-SLURM-USER-NAME": username, "X-SLURM-USER-TOKEN": jwt.encode({"alg": "HS256"}, claims, key)}

    async def _script(self, username: str, path: str) -> str:
        content = await self._files.read_file(username, path, MAX_SCRIPT_BYTES + 1)
        if content is None:
            raise FileMissing(f"Unable to open the job script {path!r}: No such file or directory.")
        if len(content) > MAX_SCRIPT_BYTES:
            raise SubmissionRefused(f"The job script is larger than {MAX_SCRIPT_BYTES} bytes.")
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise SubmissionRefused("The job script is not UTF-8, which Slurm's REST API needs.") from error

    def _silence(self) -> SystemUnavailable:
        """What the others are told: nothing of what one user's answer said."""
        return SystemUnavailable(f"slurmrestd of {self._name} does not answer.")

    def _unreached(self, error: httpx.TransportError) -> SystemUnavailable:
        return SystemUnavailable(f"slurmrestd of {self._name} does not answer ({type(error).__name__}).")

    def _queued(self, document: Mapping[str, Any]) -> Iterable[tuple[str, SeenJob]]:
        now = self._wall_clock()
        return (answers.queued_job(job, now) for job in _objects(document, "jobs"))

    def _ended(self, document: Mapping[str, Any]) -> Iterable[tuple[str, SeenJob]]:
        """The last row of a job that has not ended comes late, or never: only the controller tells of those."""
        return (pair for job in _objects(document, "jobs") if (pair := answers.accounted_job(job))[1].report.phase.is_final)


def _named(job: JobDescription) -> JobDescription:
    """As sbatch names a job that has no name."""
    return job if job.name else replace(job, name=(job.script_path or "sbatch").rpartition("/")[2])


def _objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    if not isinstance(found, list):
        raise SystemUnavailable(f"The scheduler's answer has no {key} in it.")
    return [one for one in found if isinstance(one, dict)]
