"""A cluster in memory: a scheduler whose jobs a test moves by hand, files with owners and rights, and nodes that run jobs.

They keep the promises of the ports, the unpleasant ones included: a held job never runs, an ended job never revives, an
unknown job is missing from the reports, symlinks are followed where a real system follows them.
"""

from __future__ import annotations

import base64
import json
import posixpath
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from tests.fakes import operating
from tests.fakes.file_operations import MemoryFileOperations

from stagecoach.core.errors import (
    FileMissing,
    JobNotFound,
    NoSpace,
    NotADirectory,
    NotAFile,
    PermissionRefused,
    StagecoachError,
    SubmissionUncertain,
    SystemUnavailable,
)
from stagecoach.ports.files import AccountNames, AccountNumbers, DirectoryEntry, FileKind, FileStatus, FollowedLink, Listing
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


IN_ARCHIVE = operating.IN_ARCHIVE


class MemoryScheduler:
    """Jobs by id. ``calls`` holds every call in order: (verb, user, what).

    ``unavailable`` makes every call raise SystemUnavailable while it is true; with ``known_to_be_down`` that is said
    before anything is asked. ``refusal`` is raised by submissions.
    ``lose_answers`` holds, for the next submissions, what becomes of the job whose answer is lost: ``"made"``,
    ``"never"``, or ``"late"`` (it appears with ``late_jobs_appear``). ``slow_cancel`` leaves a cancelled job running
    until ``end_cancelled_jobs``.
    """

    def __init__(self, first_job_id: int = 101, now: Callable[[], datetime] | None = None) -> None:
        self.jobs: dict[str, JobReport] = {}
        self.requests: dict[str, JobRequest] = {}
        self.calls: list[tuple[str, str, object]] = []
        self.unavailable = False
        self.known_to_be_down = False
        self.refusal: StagecoachError | None = None
        self.lose_answers: list[str] = []
        self.slow_cancel = False
        self._late: list[tuple[str, JobRequest]] = []
        self._next_id = first_job_id
        self._now = now
        self._asked_to_end: set[str] = set()

    def require_answering(self, username: str) -> None:
        if self.known_to_be_down:
            raise SystemUnavailable("The scheduler did not answer a moment ago.", data={"retry_after_seconds": 4})

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

    async def list_open_jobs(self, asker: str, name_prefix: str, *, of_everyone: bool) -> list[JobReport]:
        self._called("list_open_jobs", asker, name_prefix)
        return [job for job in self.open_jobs() if job.name.startswith(name_prefix) and (of_everyone or job.user == asker)]

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
        end_time = int(self._now().timestamp()) if self._now is not None and phase.is_final else None
        self.jobs[job_id] = replace(
            job, phase=phase, state=state, reason=reason, exit_code=exit_code, nodes=nodes, end_time=end_time
        )

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
class MemoryFiles(MemoryFileOperations):
    """Files of one system. ``free`` holds free bytes by directory; below them the nearest one counts.

    Rights are those of owner and others. ``unavailable`` makes every call raise SystemUnavailable while it is true.
    """

    entries: dict[str, Entry] = field(default_factory=lambda: {"/": Entry(FileKind.DIRECTORY, "root", 0o755)})
    free: dict[str, int] = field(default_factory=dict)
    unavailable: bool = False
    uids: dict[str, int] = field(default_factory=lambda: {"root": 0, "alice": 1000, "bob": 1001})
    """Numbers of users; their groups have the same and are called ``g-<user>``. Nobody else has a name."""
    listed: list[str] = field(default_factory=list)
    """Directories whose entries were asked for."""

    async def home(self, username: str) -> str:
        self._check_up()
        return f"/home/{username}"

    async def status(self, username: str, path: str, *, follow_symlinks: bool) -> FileStatus | None:
        self._check_up()
        found = self._find(username, path, follow_symlinks)
        if found is None:
            return None
        return self._status(found)

    async def real_path(self, username: str, path: str) -> str:
        self._check_up()
        found = self._find(username, path, follow=True)
        if found is None:
            raise FileMissing(f"{path}: No such file or directory.")
        return found

    async def read_link(self, username: str, path: str) -> str:
        self._check_up()
        found = self._find(username, path, follow=False)
        if found is None:
            raise FileMissing(f"{path}: No such file or directory.")
        return self.entries[found].target

    async def list_directory(self, username: str, path: str, *, limit: int, follow_symlinks: bool) -> Listing:
        self._check_up()
        self.listed.append(path)
        found = self._readable_directory(username, path)
        inside = [name for name in self.entries if name != "/" and posixpath.dirname(name) == found]
        entries = tuple(self._entry(username, name, follow_symlinks) for name in inside[:limit])
        return Listing(entries, is_whole=len(inside) <= limit)

    async def account_names(self, username: str, uids: Collection[int], gids: Collection[int]) -> AccountNames:
        self._check_up()
        numbers = {number: name for name, number in self.uids.items()}
        users = {uid: numbers[uid] for uid in uids if uid in numbers}
        return AccountNames(users, {gid: f"g-{numbers[gid]}" for gid in gids if gid in numbers})

    async def account_numbers(self, username: str) -> AccountNumbers:
        self._check_up()
        uid = self.uids.get(username, 4711)
        return AccountNumbers(uid, (uid,))

    async def may(self, username: str, path: str, access: str) -> bool:
        self._check_up()
        found = self._find(username, path, follow=True)
        return found is not None and all(self._allowed(username, found, letter) for letter in access)

    async def is_empty(self, username: str, path: str) -> bool:
        self._check_up()
        return not self.below(self._readable_directory(username, path))

    def _readable_directory(self, username: str, path: str) -> str:
        """Where it really is."""
        found = self._find(username, path, follow=True)
        if found is None:
            raise FileMissing(f"{path}: No such file or directory.")
        if self.entries[found].kind is not FileKind.DIRECTORY:
            raise NotADirectory(f"{path} is not a directory.")
        if not self._allowed(username, found, "r"):
            raise PermissionRefused(f"Permission denied: {path}.")
        return found

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
        self.entries[path] = Entry(FileKind.SYMLINK, owner, 0o777, target.encode("utf-8", "surrogateescape"), target)

    def add_other(self, path: str, owner: str) -> None:
        """For tests: a FIFO or the like."""
        self.entries[path] = Entry(FileKind.OTHER, owner, 0o666)

    def below(self, directory: str) -> set[str]:
        """For tests: every path below ``directory``."""
        return {path for path in self.entries if path.startswith(directory.rstrip("/") + "/")}

    def _status(self, path: str) -> FileStatus:
        entry = self.entries[path]
        letter = {FileKind.FILE: "-", FileKind.DIRECTORY: "d", FileKind.SYMLINK: "l", FileKind.OTHER: "p"}[entry.kind]
        uid = self.uids.get(entry.owner, 4711)
        return FileStatus(entry.kind, len(entry.content), entry.mode, uid, uid, 1.0, letter)

    def _entry(self, username: str, path: str, follow_symlinks: bool) -> DirectoryEntry:
        status, target, followed = self._status(path), None, None
        if status.kind is FileKind.SYMLINK:
            target = self.entries[path].target
            if follow_symlinks and (found := self._find(username, path, follow=True)) is not None:
                followed = FollowedLink(found, self._status(found))
        return DirectoryEntry(posixpath.basename(path), status, target, followed)

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

    def move_some(self, job_id: str, bytes_done: int) -> None:
        """This job gets so far: hidden file, journal and progress say so."""
        job, directory = self.scheduler.jobs[job_id], self.scheduler.requests[job_id].directory
        self.scheduler.set_phase(job_id, JobPhase.RUNNING)
        ticket = self.ticket(directory)
        if ticket is None:
            raise AssertionError("the job has no ticket")
        path = base64.b64decode(str(ticket["path_base64"])).decode()
        if "options" in ticket:
            operating.begin_half(self.files, job.user, ticket)
        if ticket["kind"] == "fetch":
            hidden = posixpath.join(posixpath.dirname(path), f".stagecoach-{ticket['transfer_id']}.part")
            self.files.add_file(hidden, job.user, bytes(bytes_done), 0o600)
        self.files.add_file(f"{directory}/journal.json", job.user, str(bytes_done).encode(), 0o600)
        progress = {"version": 1, "transfer_id": ticket["transfer_id"], "attempt": ticket["attempt"], "bytes_done": bytes_done}
        if "options" in ticket:
            progress |= {"files_done": 2, "file_count": 5, "size_bytes": 4 * bytes_done}
            self.files.add_file(f"{directory}/progress.json", job.user, json.dumps(progress).encode(), 0o600)
            return
        self.follow("PUT", str(ticket["progress_url"]), json.dumps(progress).encode())

    def end_with(self, job_id: str, phase: JobPhase, code: str | None = None) -> None:
        """This job ends so, with a receipt of that code or without one."""
        job, directory = self.scheduler.jobs[job_id], self.scheduler.requests[job_id].directory
        ticket = self.ticket(directory)
        if code is not None and ticket is not None:
            receipt = {
                "version": 1,
                "transfer_id": ticket["transfer_id"],
                "attempt": ticket["attempt"],
                "ok": False,
                "code": code,
                "message": f"The mover says {code}.",
            }
            content = json.dumps(receipt).encode()
            self.files.add_file(f"{directory}/receipt.json", job.user, content, 0o600)
            if "receipt_url" in ticket:
                self.follow("PUT", str(ticket["receipt_url"]), content)
        self.scheduler.set_phase(job_id, phase)

    def ticket(self, directory: str) -> dict[str, object] | None:
        """The ticket as the mover would get it."""
        in_file = self.files.entries.get(f"{directory}/ticket.json")
        if in_file is not None:
            of_operation: dict[str, object] = json.loads(in_file.content)
            return of_operation
        url = self.files.entries[f"{directory}/ticket-url"].content.decode().strip()
        status, _, body = self.follow("GET", url, b"")
        document: dict[str, object] | None = json.loads(body) if status == 200 else None
        return document

    def _move(self, user: str, directory: str) -> bool:
        ticket = self.ticket(directory)
        if ticket is None:
            return False
        if "options" in ticket:
            operating.end_half(self.files, ticket)
            done = operating.operate(self.files, user, ticket)
            content = operating.words(ticket, done, None if done else "source_missing", "Done." if done else "It is gone.")
            self.files.add_file(f"{directory}/receipt.json", user, content, 0o600)
            return done is not None
        path = base64.b64decode(str(ticket["path_base64"])).decode()
        moved = self._fetch(ticket, user, path) if ticket["kind"] == "fetch" else self._put(ticket, path)
        receipt = {
            "version": 1,
            "transfer_id": ticket["transfer_id"],
            "attempt": ticket["attempt"],
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
        if ticket.get("archive") is not None and self.files.below(path):
            return None
        status, _, body = self.follow("GET", urls["get_url"], b"")
        hidden = posixpath.join(posixpath.dirname(path), f".stagecoach-{ticket['transfer_id']}.part")
        self.files.add_file(hidden, user, body if status == 200 else b"", 0o600)
        if status != 200 or len(body) != ticket["size_bytes"]:
            return None
        del self.files.entries[hidden]
        if ticket.get("archive") is None:
            self.files.add_file(path, user, body, 0o600)
            return len(body)
        # In this world a directory's archive is what its one file holds.
        self.files.add_directory(path, user)
        self.files.add_file(f"{path}/{IN_ARCHIVE}", user, body)
        return len(body)

    def _put(self, ticket: Mapping[str, object], path: str) -> int | None:
        is_archive = ticket.get("archive") is not None
        entry = self.files.entries.get(f"{path}/{IN_ARCHIVE}" if is_archive else path)
        if entry is None or ticket["size_bytes"] != (None if is_archive else len(entry.content)):
            return None
        urls: Mapping[str, object] = ticket["upload"]  # type: ignore[assignment]
        part_urls: list[str] = urls["part_urls"]  # type: ignore[assignment]
        part_size, size = int(str(ticket["part_size_bytes"])), len(entry.content)
        if is_archive:
            if size > int(str(ticket["limit_bytes"])):
                return None
            part_size *= max(1, -(-size // (part_size * len(part_urls))))
            part_urls = part_urls[: max(1, -(-size // part_size))]
        return size if put_by_urls(self.follow, entry.content, part_size, part_urls, urls["complete_url"]) else None


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
