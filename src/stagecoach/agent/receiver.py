"""The receiving end of direct roads: ``rclone serve s3`` with TLS, in which each transfer has a key for one folder.

What arrives are plain files, each there only when it is whole. Keys are opened and closed while it runs. rclone believes
a key for up to five minutes after it has asked for it, so one that must be dead at once has its door shut: the path by
which rclone goes to the folder leads nowhere any more. Where nobody else has a key rclone is started again instead.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from stagecoach.agent import receiver_answer
from stagecoach.agent.bound_process import BoundProcess
from stagecoach.agent.rclone_calls import RECEIVER_BELIEVES_SECONDS
from stagecoach.agent.rclone_program import rclone_environment, usable_rclone
from stagecoach.agent.receiver_certificate import ReceiverCertificate, receiver_certificate
from stagecoach.agent.receiver_folders import Doors, FoldersNote, has_open_files, remove_leftovers, require_folder
from stagecoach.agent.receiver_keys import KeyDesk, ReceiverKey, new_key
from stagecoach.core.errors import InvalidRequest, RcloneUnavailable
from stagecoach.core.redaction import Redaction

log = logging.getLogger(__name__)

_SERVES = re.compile(r"Starting s3 server on \[https://\S*?:(\d+)/")
_KEY_ID = re.compile("[A-Za-z0-9]{1,128}")
_START_SECONDS = 20.0
_MAX_STARTS = 5
_STARTS_WINDOW_SECONDS = 300.0
_REST_SECONDS = 0.5
_DISK_FULL = re.compile("no space left on device|disk quota exceeded", re.IGNORECASE)
_REMEMBERED_SECONDS = 600.0
# It would wait longer for senders that keep their connections open.
_GRACE_SECONDS = 0.5
# rclone splits the command at its spaces and knows no quotes, so both names are links in the working directory.
_PYTHON, _ANSWER = "python", "receiver_answer.py"
_FLAGS = (
    # A file that was removed on the disk must not be taken for there for longer than this. Not 0s: rclone's timers would
    # run without a pause, on a whole core; nor much less than 1s: it would read a directory again for each file that
    # arrives in it, and 1,500 small files would take 23 s of a core instead of 2.
    *("--dir-cache-time", f"{RECEIVER_BELIEVES_SECONDS}s"),
    # Digests are those of the bytes on the disk, read for each answer, not what a sender said.
    *("--etag-hash", "MD5"),
    *("--min-tls-version", "tls1.2"),
    *("--auth-proxy", f"./{_PYTHON} -I -S ./{_ANSWER}"),
    # It may have to read a file of terabytes for its digest before it answers.
    *("--server-write-timeout", "24h"),
    # And a part of gigabytes may come slowly.
    *("--server-read-timeout", "24h"),
    # A folder stays when the last file in it is removed.
    "--no-cleanup",
    *("--stats", "0"),
    # Room would be set aside for as much as a sender says that he sends, and no size would show it.
    "--local-no-preallocate",
)


class Receiver:
    """Serves between ``start`` and ``stop``; an async context manager does both. Start it on the agent's main thread.

    ``names`` are those under which senders reach it. ``port`` 0 takes a free one, and keeps it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        receive_directory: Path,
        host: str,
        port: int,
        names: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._directory = directory.absolute()
        self._root = receive_directory
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        self._names = tuple(names)
        self._clock = clock
        self._now = now
        self._desk = KeyDesk(self._directory, clock=clock)
        self._doors = Doors(self._directory / "doors")
        self._note = FoldersNote(self._directory / "receiver-folders.json")
        self._certificate: ReceiverCertificate | None = None
        self._process: BoundProcess | None = None
        self._guard: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._starts: deque[float] = deque(maxlen=_MAX_STARTS)
        self._full_at: float | None = None

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        return self._port

    @property
    def pid(self) -> int | None:
        """Of rclone, while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def gave_up(self) -> bool:
        """It has ended too often of late, and is not started again by itself."""
        return self._guard is not None and self._guard.done()

    @property
    def certificate(self) -> ReceiverCertificate:
        """Once started. Its fingerprint is what senders are told."""
        if self._certificate is None:
            raise RcloneUnavailable("The receiver has not been started.")
        return self._certificate

    def health(self) -> list[str]:
        """Sentences for the node's owner; none when all is well. A sender is never told more than that storing failed."""
        found = []
        if self.pid is None:
            found.append("The receiver does not run: nobody can send to this node directly.")
        if self._full_at is not None and self._clock() - self._full_at < _REMEMBERED_SECONDS:
            found.append(f"The disk of {self._root} was full when somebody sent to this node: free some space.")
        return found

    async def start(self) -> None:
        """Returns when it serves. Raises SettingsError, or RcloneUnavailable when it does not start."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        self._certificate = receiver_certificate(self._directory, self._names, now=self._now())
        _link(self._directory / _PYTHON, Path(sys.executable))
        _link(self._directory / _ANSWER, Path(receiver_answer.__file__))
        await self._clean()
        await self._desk.start()
        try:
            await self._spawn()
        except BaseException:
            await self._desk.stop()
            raise
        self._guard = asyncio.create_task(self._keep_alive(), name="guard of the receiver")

    async def stop(self) -> None:
        """Ends it; all keys are dead. May be called twice."""
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.wait([self._guard])
            self._guard = None
        await self._end(_GRACE_SECONDS)
        await self._desk.stop()
        await self._clean()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def open_key(self, folder: Path, key: ReceiverKey | None = None) -> ReceiverKey:
        """A key for ``folder``, an existing directory; ``key`` to open one again that was given out before.

        Raises PathRefused for a folder outside the receive directory or with links to directories in it.
        """
        if key is not None and not _KEY_ID.fullmatch(key.access_key_id):
            # It becomes the name of a link.
            raise InvalidRequest("A key for direct transfers has letters and digits in its name, and nothing else.")
        real = await asyncio.to_thread(require_folder, folder, self._root)
        opened = new_key(real) if key is None else ReceiverKey(key.access_key_id, key.secret_access_key, real)
        opened = replace(opened, door=self._doors.open(opened.access_key_id, real))
        # Before the key is open: what fails here must not leave it so.
        self._note.write([*self._note.read(), real])
        self._desk.open(opened)
        return opened

    def has_open_below(self, folder: Path) -> bool:
        """Whether its rclone has a file open there. Blocking. Raises OSError."""
        return self.pid is not None and has_open_files(self.pid, folder)

    async def begin_anew(self) -> None:
        """Break off all that is being sent here, and remove every beginning: what is open stays open. Senders try again.

        Raises RcloneUnavailable when it does not come back; its guard, or its owner, tries again.
        """
        believing = self._process
        async with self._one_at_a_time:
            if believing is None or self._process is not believing:
                return  # it has ended by itself meanwhile, and its successor knows nothing of what was begun
            await self._end(grace_seconds=0.0)
            await self._clean()
            await self._spawn()

    async def cut_key(self, access_key_id: str) -> None:
        """As :func:`close_key`, and what its holder sends at this moment ends too: a door that is shut does not stop a file
        that is open already. Others are broken off with it. Raises the same as :func:`begin_anew`."""
        self._desk.close(access_key_id)
        await self.begin_anew()

    def note_full_disk(self) -> None:
        """Its owner is told for a while."""
        self._full_at = self._clock()

    async def close_key(self, access_key_id: str, *, at_once: bool = True) -> None:
        """Nobody is let in with it any more: at once, or, where its holder has done what he wanted, within five minutes."""
        is_believed = self._desk.close(access_key_id)
        if is_believed and at_once and self._desk.keys:
            # A new start would break off what others send: files of hours begin anew.
            try:
                self._doors.shut(access_key_id)
                return
            except OSError as error:
                log.warning("a door cannot be shut (%s), so the receiver is started again", error.strerror)
        if is_believed and at_once:
            # Asked politely, it would let an upload with the closed key go on for seconds.
            await self.begin_anew()

    async def _spawn(self) -> None:
        process = BoundProcess("receiver", redacted=self._redacted, log=log, heard=self._hear)
        self._desk.forget_answers()
        command = [await usable_rclone(), "serve", "s3", "--addr", f"{self._host}:{self._port}"]
        port = await process.start(
            [*command, "--cert", str(self.certificate.certificate_file), "--key", str(self.certificate.key_file), *_FLAGS],
            environment=rclone_environment(os.environ, self._directory),
            directory=self._directory,
            ready=_SERVES,
            start_seconds=_START_SECONDS,
        )
        self._port, self._process = int(port), process

    async def _keep_alive(self) -> None:
        """Starts it again when it ends by itself, unless it has ended too often of late."""
        while True:
            process = self._process
            if process is None:
                await asyncio.sleep(_REST_SECONDS)
            else:
                await process.ended()
            async with self._one_at_a_time:
                if self.pid is not None:
                    continue
                if len(self._starts) == _MAX_STARTS and self._clock() - self._starts[0] < _STARTS_WINDOW_SECONDS:
                    log.error(
                        "the receiver ended %d times within %g s and is not started again", _MAX_STARTS, _STARTS_WINDOW_SECONDS
                    )
                    return
                log.warning("the receiver ended: %s", process.last_words if process is not None else "it did not start")
                await self._end(grace_seconds=0.0)
                await self._clean()
                self._starts.append(self._clock())
                try:
                    await self._spawn()
                except RcloneUnavailable as failure:
                    log.warning("%s", failure.message)

    async def _end(self, grace_seconds: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.stop(grace_seconds)

    async def _clean(self) -> None:
        """While no rclone serves: what it had begun to write it has forgotten."""
        for folder in self._note.read():
            if removed := await asyncio.to_thread(remove_leftovers, folder):
                log.info("%d unfinished files were removed below %s", removed, folder)
        self._note.write(key.folder for key in self._desk.keys)
        self._doors.forget_all_but({key.access_key_id for key in self._desk.keys})

    def _hear(self, line: str) -> None:
        if _DISK_FULL.search(line):
            self.note_full_disk()

    def _redacted(self, text: str) -> str:
        return Redaction(key.secret_access_key for key in self._desk.keys).redacted(text)


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink() or link.readlink() != target:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
