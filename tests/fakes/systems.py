"""A cluster in memory: a scheduler whose jobs a test moves by hand, files with owners and rights, and nodes that run jobs.

They keep the promises of the ports, the unpleasant ones included: a held job never runs, an ended job never revives, an
unknown job is missing from the reports, symlinks are followed where a real system follows them.
"""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stagecoach.core.errors import (
    FileMissing,
    JobNotFound,
    NoSpace,
    NotAFile,
    PermissionRefused,
    StagecoachError,
    SubmissionUncertain,
    SystemUnavailable,
)
from stagecoach.ports.files import FileKind, FileStatus
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport, JobRequest

_FINAL_WORDS = {
    JobPhase.HELD: "PENDING",
    JobPhase.PENDING: "PENDING",
    JobPhase.RUNNING: "RUNNING",
    JobPhase.COMPLETED: "COMPLETED",
    JobPhase.FAILED: "FAILED",
    JobPhase.CANCELLED: "CANCELLED",
    JobPhase.TIMEOUT: "TIMEOUT",
    JobPhase.NODE_FAIL: "NODE_FAIL",
    JobPhase.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    JobPhase.PREEMPTED: "PREEMPTED",
}


class MemoryScheduler:
    """Jobs by id. ``calls`` holds every call in order: (verb, user, what).

    ``unavailable`` makes every call raise SystemUnavailable while it is true. ``refusal`` is raised by submissions.
    ``lose_answers`` holds, for the next submissions, what becomes of the job whose answer is lost: ``"made"``,
    ``"never"``, or ``"late"`` (it appears with ``late_jobs_appear``). ``slow_cancel`` leaves a cancelled job running
    until ``end_cancelled_jobs``.
    """

    def __init__(self, first_job_id: int = 101) -> None:
        self.jobs: dict[str, JobReport] = {}
        self.requests: dict[str, JobRequest] = {}
        self.calls: list[tuple[str, str, object]] = []
        self.unavailable = False
        self.refusal: StagecoachError | None = None
        self.lose_answers: list[str] = []
        self.slow_cancel = False
        self._late: list[tuple[str, JobRequest]] = []
        self._next_id = first_job_id
        self._asked_to_end: set[str] = set()

    async def submit(self, username: str, request: JobRequest) -> str:
        self._called("submit", username, request.name)
        if self.refusal is not None:
            raise self.refusal
        if self.lose_answers:
            fate = self.lose_answers.pop(0)
            if fate == "made":
                self._make(username, request)
            elif fate == "late":
                self._late.append((username, request))
            raise SubmissionUncertain("The answer to the submission was lost.")
        return self._make(username, request)

    async def find(self, username: str, name: str) -> list[JobReport]:
        self._called("find", username, name)
        return [job for job in self.jobs.values() if (job.name, job.user) == (name, username)]

    async def release(self, username: str, job_id: str) -> None:
        self._called("release", username, job_id)
        job = self.jobs.get(job_id)
        if job is None:
            raise JobNotFound(f"Job not found: {job_id}.")
        if job.user != username:
            raise PermissionRefused("Access denied.")
        if job.phase is JobPhase.HELD:
            self.set_phase(job_id, JobPhase.PENDING)

    async def cancel(self, username: str, job_id: str) -> None:
        self._called("cancel", username, job_id)
        job = self.jobs.get(job_id)
        if job is None or job.phase.is_final:
            return
        if job.user != username:
            raise PermissionRefused("Access denied.")
        self._asked_to_end.add(job_id)
        if not self.slow_cancel:
            self.set_phase(job_id, JobPhase.CANCELLED)

    async def reports(self, jobs: Sequence[JobKey]) -> Mapping[str, JobReport]:
        self._called("reports", "", tuple(job.job_id for job in jobs))
        found = {}
        for key in jobs:
            job = self.jobs.get(key.job_id)
            if job is not None and (job.name, job.user) == (key.name, key.user):
                found[key.job_id] = job
        return found

    async def try_directives(self, username: str, account: str | None) -> None:
        self._called("try_directives", username, None)

    async def ping(self, username: str) -> str:
        self._called("ping", username, None)
        return "memory scheduler 1"

    def set_phase(self, job_id: str, phase: JobPhase, *, state: str | None = None, reason: str = "") -> None:
        """For tests: what the scheduler does with the job. An ended job stays ended."""
        job = self.jobs[job_id]
        if job.phase.is_final and not phase.is_final:
            raise AssertionError(f"job {job_id} has ended; it does not become {phase}")
        exit_code = {JobPhase.COMPLETED: 0, JobPhase.FAILED: 1}.get(phase)
        reason = reason or ("JobHeldUser" if phase is JobPhase.HELD else "")
        nodes = "" if phase in {JobPhase.HELD, JobPhase.PENDING} else "nid000001"
        state = state or _FINAL_WORDS[phase]
        self.jobs[job_id] = replace(job, phase=phase, state=state, reason=reason, exit_code=exit_code, nodes=nodes)

    def forget(self, job_id: str) -> None:
        """For tests: neither queue nor accounting knows the job any more."""
        del self.jobs[job_id]

    def late_jobs_appear(self) -> None:
        """For tests: submissions that were thought lost are carried out now."""
        for username, request in self._late:
            self._make(username, request)
        self._late.clear()

    def end_cancelled_jobs(self) -> None:
        """For tests: with ``slow_cancel``, the jobs that were asked to end do."""
        for job_id in self._asked_to_end:
            if job_id in self.jobs and not self.jobs[job_id].phase.is_final:
                self.set_phase(job_id, JobPhase.CANCELLED)
        self._asked_to_end.clear()

    def open_jobs(self) -> list[JobReport]:
        """For tests: the jobs that could still do something."""
        return [job for job in self.jobs.values() if not job.phase.is_final]

    def count(self, verb: str) -> int:
        """For tests: how often ``verb`` was called."""
        return sum(1 for call in self.calls if call[0] == verb)

    def _called(self, verb: str, username: str, what: object) -> None:
        self.calls.append((verb, username, what))
        if self.unavailable:
            raise SystemUnavailable("The scheduler does not answer.")

    def _make(self, username: str, request: JobRequest) -> str:
        job_id, self._next_id = str(self._next_id), self._next_id + 1
        phase = JobPhase.HELD if request.held else JobPhase.PENDING
        self.jobs[job_id] = JobReport(
            job_id=job_id, name=request.name, phase=phase, state="PENDING", user=username, account=request.account or ""
        )
        self.requests[job_id] = request
        self.set_phase(job_id, phase)
        return job_id


@dataclass
class Entry:
    """One thing in a directory."""

    kind: FileKind
    owner: str
    mode: int
    content: bytes = b""
    target: str = ""


@dataclass
class MemoryFiles:
    """Files of one system. ``free`` holds free bytes by directory; below them the nearest one counts.

    Rights are those of owner and others. ``unavailable`` makes every call raise SystemUnavailable while it is true.
    """

    entries: dict[str, Entry] = field(default_factory=lambda: {"/": Entry(FileKind.DIRECTORY, "root", 0o755)})
    free: dict[str, int] = field(default_factory=dict)
    unavailable: bool = False

    async def home(self, username: str) -> str:
        self._check_up()
        return f"/home/{username}"

    async def status(self, username: str, path: str, *, follow_symlinks: bool) -> FileStatus | None:
        self._check_up()
        found = self._find(username, path, follow_symlinks)
        if found is None:
            return None
        entry = self.entries[found]
        return FileStatus(entry.kind, len(entry.content), entry.mode, 1000, 1000, 1.0)

    async def real_path(self, username: str, path: str) -> str:
        self._check_up()
        found = self._find(username, path, follow=True)
        if found is None:
            raise FileMissing(f"{path}: No such file or directory.")
        return found

    async def may(self, username: str, path: str, access: str) -> bool:
        self._check_up()
        found = self._find(username, path, follow=True)
        return found is not None and all(self._allowed(username, found, letter) for letter in access)

    async def free_bytes(self, username: str, path: str) -> int | None:
        self._check_up()
        while True:
            if path in self.free:
                return self.free[path]
            if path == "/":
                return None
            path = posixpath.dirname(path)

    async def make_directory(self, username: str, path: str) -> None:
        self._check_up()
        parent = posixpath.dirname(path)
        if path == "/" or self._find(username, path, follow=True) is not None:
            if path != "/" and self.entries[self._find(username, path, follow=True) or ""].kind is not FileKind.DIRECTORY:
                raise NotAFile(f"{path} is not a directory.")
            return
        await self.make_directory(username, parent)
        self._put(username, path, Entry(FileKind.DIRECTORY, username, 0o700))

    async def write_file(self, username: str, path: str, content: bytes, mode: int) -> None:
        self._check_up()
        free = await self.free_bytes(username, posixpath.dirname(path))
        if free is not None and len(content) > free:
            raise NoSpace("No space left on device.")
        self._put(username, path, Entry(FileKind.FILE, username, mode, content))

    async def read_file(self, username: str, path: str, limit_bytes: int) -> bytes | None:
        self._check_up()
        found = self._find(username, path, follow=True)
        if found is None:
            return None
        if self.entries[found].kind is not FileKind.FILE:
            raise NotAFile(f"{path} is not a regular file.")
        if not self._allowed(username, found, "r"):
            raise PermissionRefused(f"Permission denied: {path}.")
        return self.entries[found].content[:limit_bytes]

    async def remove_file(self, username: str, path: str) -> None:
        self._check_up()
        found = self._find(username, path, follow=False)
        if found is None:
            return
        if self.entries[found].kind is FileKind.DIRECTORY:
            raise NotAFile(f"{path} is a directory.")
        self._require_writable(username, posixpath.dirname(found))
        del self.entries[found]

    async def remove_tree(self, username: str, path: str) -> None:
        self._check_up()
        found = self._find(username, path, follow=False)
        if found is None:
            return
        self._require_writable(username, posixpath.dirname(found))
        for name in [name for name in self.entries if name == found or name.startswith(found + "/")]:
            del self.entries[name]

    def add_user(self, username: str) -> None:
        """For tests: a home directory, /home/{username}, which only its owner may use."""
        self.add_directory("/home", "root", 0o755)
        self.add_directory(f"/home/{username}", username, 0o700)

    def add_directory(self, path: str, owner: str, mode: int = 0o755) -> None:
        """For tests: a directory."""
        self.entries[path] = Entry(FileKind.DIRECTORY, owner, mode)

    def add_file(self, path: str, owner: str, content: bytes, mode: int = 0o644) -> None:
        """For tests: a regular file."""
        self.entries[path] = Entry(FileKind.FILE, owner, mode, content)

    def add_symlink(self, path: str, owner: str, target: str) -> None:
        """For tests: a symbolic link."""
        self.entries[path] = Entry(FileKind.SYMLINK, owner, 0o777, target.encode(), target)

    def add_other(self, path: str, owner: str) -> None:
        """For tests: a FIFO or the like."""
        self.entries[path] = Entry(FileKind.OTHER, owner, 0o666)

    def below(self, directory: str) -> set[str]:
        """For tests: every path below ``directory``."""
        return {path for path in self.entries if path.startswith(directory.rstrip("/") + "/")}

    def _check_up(self) -> None:
        if self.unavailable:
            raise SystemUnavailable("The login node does not answer.")

    def _allowed(self, username: str, path: str, letter: str) -> bool:
        entry = self.entries[path]
        shift = 6 if entry.owner == username else 0
        return bool((entry.mode >> shift) & {"r": 4, "w": 2, "x": 1}[letter])

    def _require_writable(self, username: str, directory: str) -> None:
        if not self._allowed(username, directory, "w"):
            raise PermissionRefused(f"Permission denied: you may not write in {directory}.")

    def _put(self, username: str, path: str, entry: Entry) -> None:
        parent = self._find(username, posixpath.dirname(path), follow=True)
        if parent is None:
            raise FileMissing(f"{posixpath.dirname(path)}: No such file or directory.")
        if self.entries[parent].kind is not FileKind.DIRECTORY:
            raise FileMissing(f"{posixpath.dirname(path)}: Not a directory.")
        self._require_writable(username, parent)
        self.entries[posixpath.join(parent, posixpath.basename(path))] = entry

    def _find(self, username: str, path: str, follow: bool, links_left: int = 40) -> str | None:
        """The path with symlinks resolved (the last one only when ``follow``), or None when nothing is there."""
        here = "/"
        names = [name for name in path.split("/") if name]
        for position, name in enumerate(names):
            if self.entries[here].kind is not FileKind.DIRECTORY:
                return None
            if not self._allowed(username, here, "x"):
                raise PermissionRefused(f"Permission denied: {here} may not be entered.")
            here = posixpath.join(here, name)
            entry = self.entries.get(here)
            if entry is None:
                return None
            if entry.kind is FileKind.SYMLINK and (follow or position < len(names) - 1):
                if links_left == 0:
                    return None
                target = posixpath.join(posixpath.dirname(here), entry.target)
                resolved = self._find(username, posixpath.normpath(target), True, links_left - 1)
                if resolved is None:
                    return None
                here = resolved
        return here


Follow = Callable[[str, str, bytes], tuple[int, dict[str, str], bytes]]
"""What a presigned URL permits: (method, url, body) → (status, headers, body)."""


@dataclass
class MemoryNodes:
    """The compute nodes: runs what a job's directory holds, with the ticket's URLs alone, as the mover does."""

    scheduler: MemoryScheduler
    files: MemoryFiles
    follow: Follow

    def start_pending(self) -> None:
        """Pending jobs run."""
        for job in list(self.scheduler.jobs.values()):
            if job.phase is JobPhase.PENDING:
                self.scheduler.set_phase(job.job_id, JobPhase.RUNNING)

    def finish_running(self) -> None:
        """Running jobs do their work and end, well or not."""
        for job in list(self.scheduler.jobs.values()):
            if job.phase is JobPhase.RUNNING:
                self.run(job.job_id)

    def run(self, job_id: str) -> None:
        """This job does its work and ends."""
        job, request = self.scheduler.jobs[job_id], self.scheduler.requests[job_id]
        if request.script_path not in self.files.entries:
            self.scheduler.set_phase(job_id, JobPhase.FAILED)
            return
        self.files.add_file(request.output_path, job.user, b"job output\n", 0o600)
        worked = self._move(job.user, request.directory)
        self.scheduler.set_phase(job_id, JobPhase.COMPLETED if worked else JobPhase.FAILED)

    def ticket(self, directory: str) -> dict[str, object] | None:
        """The ticket as the mover would get it."""
        url = self.files.entries[f"{directory}/ticket-url"].content.decode().strip()
        status, _, body = self.follow("GET", url, b"")
        document: dict[str, object] | None = json.loads(body) if status == 200 else None
        return document

    def _move(self, user: str, directory: str) -> bool:
        ticket = self.ticket(directory)
        if ticket is None:
            return False
        path = base64.b64decode(str(ticket["path_base64"])).decode()
        moved = self._fetch(ticket, user, path) if ticket["kind"] == "fetch" else self._put(ticket, path)
        receipt = {
            "version": 1,
            "transfer_id": ticket["transfer_id"],
            "kind": ticket["kind"],
            "ok": moved is not None,
            "code": None if moved is not None else "store_refused",
            "message": "Whole." if moved is not None else "The store refused.",
            "size_bytes": moved or 0,
            "bytes_moved": moved or 0,
            "bytes_resumed": 0,
            "proved": [{"how": "size", "value": str(moved)}] if moved is not None else [],
        }
        content = json.dumps(receipt).encode()
        self.files.add_file(f"{directory}/receipt.json", user, content, 0o600)
        self.follow("PUT", str(ticket["receipt_url"]), content)
        return moved is not None

    def _fetch(self, ticket: Mapping[str, object], user: str, path: str) -> int | None:
        urls: Mapping[str, str] = ticket["object"]  # type: ignore[assignment]
        status, _, body = self.follow("GET", urls["get_url"], b"")
        hidden = posixpath.join(posixpath.dirname(path), f".stagecoach-{ticket['transfer_id']}.part")
        self.files.add_file(hidden, user, body if status == 200 else b"", 0o600)
        if status != 200 or len(body) != ticket["size_bytes"]:
            return None
        self.files.entries[path] = self.files.entries.pop(hidden)
        return len(body)

    def _put(self, ticket: Mapping[str, object], path: str) -> int | None:
        entry = self.files.entries.get(path)
        if entry is None or len(entry.content) != ticket["size_bytes"]:
            return None
        urls: Mapping[str, object] = ticket["upload"]  # type: ignore[assignment]
        if not put_by_urls(
            self.follow, entry.content, int(str(ticket["part_size_bytes"])), urls["part_urls"], urls["complete_url"]
        ):
            return None
        return len(entry.content)


def put_by_urls(follow: Follow, content: bytes, part_size_bytes: int, part_urls: object, complete_url: object) -> bool:
    """What a client (or a job) does with part URLs and the complete URL; whether the store took it all."""
    elements = []
    for index, url in enumerate(part_urls):  # type: ignore[arg-type, var-annotated]
        part = content[index * part_size_bytes : (index + 1) * part_size_bytes]
        status, headers, _ = follow("PUT", url, part)
        if status != 200:
            return False
        elements.append(f"<Part><PartNumber>{index + 1}</PartNumber><ETag>{headers['ETag']}</ETag></Part>")
    body = f"<CompleteMultipartUpload>{''.join(elements)}</CompleteMultipartUpload>".encode()
    return follow("POST", str(complete_url), body)[0] == 200
