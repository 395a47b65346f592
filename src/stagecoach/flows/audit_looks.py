"""What an audit sees outside: the store's buckets, and each system's jobs, work directories and target directories.

Nothing is judged here but one thing: whether it is this service's at all. A bucket of our prefix is ours by its
name; a cluster may serve several Stagecoaches, so a job or a directory of a transfer that no row knows is ours only when
the ticket URL in its directory leads into our own store.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from stagecoach.core import names
from stagecoach.core.audit import Kind, Thing
from stagecoach.core.errors import BucketMissing, FileMissing, NotFound, StagecoachError, SystemNotFound
from stagecoach.core.job_scripts import TICKET_FILE
from stagecoach.core.operation_tickets import MAX_TICKET_BYTES, ticket_address
from stagecoach.core.transfer import Transfer
from stagecoach.database.inventory import Target
from stagecoach.flows.submit_job import choose_job_directory
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.flows.write_ticket import TICKET_URL_FILE
from stagecoach.ports.files import FileKind, FileStatus

OWNERS_AT_ONCE = 4
MAX_URL_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Scope:
    """How far an audit looks: the targets of uploads of the last ``days``, and things older than ``grace_seconds``."""

    days: float = 30.0
    grace_seconds: float = 300.0


@dataclass(slots=True)
class Seen:
    """What one look brought home. Notes are (place, words)."""

    things: list[Thing] = field(default_factory=list)
    unseen: list[tuple[str, str]] = field(default_factory=list)
    foreign: list[tuple[str, str]] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)
    """Buckets that were seen to their end."""
    missing_buckets: set[str] = field(default_factory=set)


async def look_at_store(tools: Toolbox, known: Mapping[str, str]) -> Seen:
    """All buckets of our prefix and all in ``known`` (name to owner)."""
    seen, prefix = Seen(), tools.settings.s3.bucket_prefix
    listed: list[str] = []
    try:
        # Without a prefix every bucket of the account would be taken for ours.
        listed = await tools.store.list_buckets(prefix) if prefix else []
    except StagecoachError as error:
        seen.unseen.append(("store", f"which buckets there are: {error.message}"))
    for bucket in sorted({*listed, *known}):
        try:
            await _look_at_bucket(tools, bucket, known.get(bucket), seen, is_known=bucket in known)
        except BucketMissing:
            seen.missing_buckets.add(bucket)
        except StagecoachError as error:
            seen.unseen.append((bucket, error.message))
    return seen


async def _look_at_bucket(tools: Toolbox, bucket: str, owner: str | None, seen: Seen, *, is_known: bool) -> None:
    things: list[Thing] = []
    foreign: list[str] = []
    async for item in tools.store.list_objects(bucket):
        thing = _stored(Kind.OBJECT, bucket, item.key, owner, item.modified_at)
        if thing is not None:
            things.append(thing)
        elif not is_known:
            # Somebody else's bucket that happens to begin like ours: nothing in it is touched, nor counted.
            seen.foreign.append((bucket, f"is no bucket of ours: it holds {item.key!r}"))
            return
        else:
            foreign.append(item.key)
    for upload in await tools.store.list_multiparts(bucket):
        thing = _stored(Kind.MULTIPART, bucket, upload.key, owner, upload.begun_at, upload.upload_id)
        if thing is not None:
            things.append(thing)
        else:
            foreign.append(upload.key)
    if foreign:
        seen.foreign.append((bucket, f"{len(foreign)} objects or uploads whose keys are not ours, the first {foreign[0]!r}"))
    if is_known or not foreign:
        seen.things += things
        seen.whole.add(bucket)


def _stored(kind: Kind, bucket: str, key: str, owner: str | None, made_at: datetime | None, upload_id: str = "") -> Thing | None:
    transfer_id = names.id_in_key(key)
    if transfer_id is None:
        return None
    of_check = key.startswith(names.CHECK_PREFIX)
    return Thing(kind, bucket, key, transfer_id, owner, made_at, upload_id, is_of_check=of_check)


async def look_at_system(tools: Toolbox, name: str, owners: Sequence[str], scope: Scope) -> Seen:
    """All that these users may have of ours on the system."""
    look = _SystemLook(tools, name)
    try:
        system = tools.system(name)
    except SystemNotFound:
        look.seen.unseen.append((name, "is no longer configured, so what is left there cannot be seen"))
        return look.seen
    if system.node_id is not None:
        # What lies on a node's disk nobody sees but its agent, which tidies up by itself.
        await asyncio.gather(*(look.at_jobs(system, owner, None) for owner in owners))
        return look.seen
    targets: dict[str, list[Target]] = {}
    for target in await tools.inventory.targets(tools.now() - timedelta(days=scope.days)):
        if target.system == name:
            targets.setdefault(target.owner, []).append(target)
    bound = asyncio.Semaphore(OWNERS_AT_ONCE)

    async def look_as(owner: str) -> None:
        async with bound:
            await look.at_work_directory(system, owner)
            await look.at_targets(system, owner, targets.get(owner, []))

    await asyncio.gather(*(look_as(owner) for owner in owners))
    # After the directories, which tell whose a job is.
    asker = system.settings.scheduler.ask_as
    if asker is not None:
        await look.at_jobs(system, asker, set(owners))
    else:
        await asyncio.gather(*(look.at_jobs(system, owner, None) for owner in owners))
    return look.seen


class _SystemLook:
    """One system; what cannot be looked at is noted and the rest is looked at all the same."""

    def __init__(self, tools: Toolbox, name: str) -> None:
        self._tools = tools
        self._name = name
        self.seen = Seen()

    async def at_work_directory(self, system: System, owner: str) -> None:
        """Job directories of transfers, and nothing else that may be there."""
        base = "its work directory"
        try:
            base = posixpath.dirname(await choose_job_directory(system, owner, "any"))
            limit = system.settings.limits.max_listed_entries
            listing = await system.files.list_directory(owner, base, limit=limit, follow_symlinks=False)
        except FileMissing:
            return
        except StagecoachError as error:
            self._unseen(owner, base, error.message)
            return
        if not listing.is_whole:
            self._unseen(owner, base, f"has more than {limit} entries")
        directories = [entry for entry in listing.entries if entry.status.kind is FileKind.DIRECTORY]
        ids = {entry.name: names.id_in_directory_name(entry.name) for entry in directories}
        rows = await self._tools.inventory.rows([transfer_id for transfer_id in ids.values() if transfer_id])
        for entry in directories:
            transfer_id, path = ids[entry.name], posixpath.join(base, entry.name)
            if transfer_id is None:
                continue
            of_check = entry.name.startswith(names.CHECK_PREFIX)
            try:
                is_ours = of_check or await self._is_ours(system, owner, rows.get(transfer_id), transfer_id, path, path)
            except StagecoachError as error:
                self._unseen(owner, path, error.message)
                continue
            if is_ours:
                made_at = _changed_at(transfer_id, entry.status)
                thing = Thing(Kind.JOB_DIRECTORY, self._name, path, transfer_id, owner, made_at, is_of_check=of_check)
                self.seen.things.append(thing)

    async def at_targets(self, system: System, owner: str, targets: Sequence[Target]) -> None:
        """Hidden files beside, or in, targets of what has ended; a directory is read once however many went there."""
        by_directory: dict[str, list[Target]] = {}
        for target in targets:
            by_directory.setdefault(posixpath.dirname(target.hidden_path), []).append(target)
        for directory, here in by_directory.items():
            try:
                found = await self._hidden(system, owner, directory, here)
            except NotFound:
                continue
            except StagecoachError as error:
                self._unseen(owner, directory, error.message)
                continue
            for name, status in found.items():
                transfer_id = names.id_in_temporary_name(name) or ""
                path, made_at = posixpath.join(directory, name), _changed_at(transfer_id, status)
                self.seen.things.append(Thing(Kind.TEMPORARY_FILE, self._name, path, transfer_id, owner, made_at))

    async def _hidden(self, system: System, owner: str, directory: str, here: Sequence[Target]) -> dict[str, FileStatus]:
        """By name; those of the rows ``here`` alone, since another Stagecoach may deliver into the same directory."""
        wanted = {names.temporary_name(target.transfer_id) for target in here}
        limit = system.settings.limits.max_listed_entries
        listing = await system.files.list_directory(owner, directory, limit=limit, follow_symlinks=False)
        if listing.is_whole:
            return {entry.name: entry.status for entry in listing.entries if entry.name in wanted}
        looks = {
            name: await system.files.status(owner, posixpath.join(directory, name), follow_symlinks=False)
            for name in sorted(wanted)
        }
        return {name: status for name, status in looks.items() if status is not None}

    async def at_jobs(self, system: System, asker: str, everyone: set[str] | None) -> None:
        """Open jobs of ``asker``, or of ``everyone`` when they can be asked for at once."""
        try:
            jobs = await system.scheduler.list_open_jobs(asker, names.JOB_NAME_PREFIX, of_everyone=everyone is not None)
        except StagecoachError as error:
            self._unseen(asker, "its jobs", error.message)
            return
        known = {asker} if everyone is None else everyone
        jobs = [job for job in jobs if job.user in known]
        ours = [(job, parsed) for job in jobs if (parsed := names.id_and_attempt_in_job_name(job.name)) is not None]
        rows = await self._tools.inventory.rows([transfer_id for _, (transfer_id, _) in ours])
        for job, (transfer_id, attempt) in ours:
            try:
                is_gone = transfer_id not in rows and system.node_id is None
                path = await choose_job_directory(system, job.user, transfer_id) if is_gone else ""
                what = f"job {job.job_id} of {job.user} ({job.name})"
                is_ours = await self._is_ours(system, job.user, rows.get(transfer_id), transfer_id, path, what)
            except StagecoachError as error:
                self._unseen(job.user, f"whose job {job.job_id} ({job.name}) is", error.message)
                continue
            if is_ours:
                made_at = datetime.fromtimestamp(job.submit_time, UTC) if job.submit_time else None
                thing = Thing(Kind.JOB, self._name, job.job_id, transfer_id, job.user, made_at, attempt=attempt)
                self.seen.things.append(thing)

    async def _is_ours(self, system: System, owner: str, row: Transfer | None, transfer_id: str, path: str, what: str) -> bool:
        """Whether a job or directory of this transfer, seen as ``owner`` on this system, is this service's.

        ``path`` is the job's directory, ``what`` the thing in words.
        """
        if row is not None:
            return (row.system, row.owner) == (self._name, owner)
        if system.node_id is not None:
            return True  # its queue is in our own database
        content = await self._ticket_url(system, owner, path)
        store, bucket = self._tools.store, names.bucket_name(self._tools.settings.s3.bucket_prefix, owner)
        key = names.ticket_key(transfer_id)
        ours = store.presign("GET", bucket, key, audience="system", ttl_seconds=60, system=self._name)
        if content is not None and content.partition(b"?")[0] == ours.encode().partition(b"?")[0]:
            return True
        self.seen.foreign.append((self._name, f"{what}: nothing proves that it is of this service and not of another Stagecoach"))
        return False

    async def _ticket_url(self, system: System, owner: str, path: str) -> bytes | None:
        try:
            url = await system.files.read_file(owner, posixpath.join(path, TICKET_URL_FILE), MAX_URL_BYTES)
            # An operation's job reads its ticket from a file, which says where another's would be.
            return url or ticket_address(await system.files.read_file(owner, posixpath.join(path, TICKET_FILE), MAX_TICKET_BYTES))
        except StagecoachError as error:
            if error.retryable:
                raise
            return None  # The owner put something else there, or closed it: nothing proves that it is ours.

    def _unseen(self, owner: str, what: str, why: str) -> None:
        self.seen.unseen.append((self._name, f"{owner}: {what}: {why}"))


def _changed_at(transfer_id: str, status: FileStatus) -> datetime:
    """A file system may show a time of long ago; no name is older than its id."""
    epoch_seconds = max(status.mtime_epoch_seconds, names.epoch_seconds_of(transfer_id))
    return datetime.fromtimestamp(epoch_seconds, UTC)
