"""The keys of a receiver: one for each transfer, good for one folder, known in the agent's memory alone.

rclone asks for them through a socket in a directory that is the agent's own; whoever asks must be the same user.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stagecoach.agent.receiver_answer import MAX_BYTES, SOCKET_NAME
from stagecoach.core.errors import InvalidRequest

log = logging.getLogger(__name__)

BUCKET = "data"
# rclone believes an answer for 5 minutes, then asks again; and a little, since its clock begins after ours.
BELIEVED_SECONDS = 305.0
_QUESTION_SECONDS = 10.0
_PEER_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class ReceiverKey:
    """Opens ``folder``, which the key's holder sees as the bucket ``data``, and nothing else.

    ``door`` is the path by which rclone reaches the folder, where it is another one.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    folder: Path
    door: Path | None = None

    def answer(self) -> dict[str, str]:
        """As rclone takes it. ``combine`` gives the folder the bucket's name; its list is words in CSV quotes."""
        upstream = f"{BUCKET}={self.door or self.folder}".replace('"', '""')
        return {
            "type": "combine",
            "upstreams": f'"{upstream}"',
            "_root": "",
            "_secret_access_key": self.secret_access_key,
        }


def new_key(folder: Path) -> ReceiverKey:
    """A key nobody can guess."""
    return ReceiverKey(f"SC{secrets.token_hex(12).upper()}", secrets.token_urlsafe(32), folder)


class KeyDesk:
    """Answers rclone between ``start`` and ``stop``, in ``directory``, which must be for the agent's user alone."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._keys: dict[str, ReceiverKey] = {}
        self._believed_until: dict[str, float] = {}
        self._server: asyncio.Server | None = None

    @property
    def keys(self) -> tuple[ReceiverKey, ...]:
        """Those that are open."""
        return tuple(self._keys.values())

    def open(self, key: ReceiverKey) -> None:
        """From now on. Raises InvalidRequest when another one has its name, or its path cannot be said to rclone."""
        if self._keys.get(key.access_key_id, key) != key:
            raise InvalidRequest("A key of this name is open already.")
        if "\n" in str(key.folder) or "\r" in str(key.folder):
            raise InvalidRequest(f"{str(key.folder)!r}: a folder for direct transfers has no line break in its name.")
        self._keys[key.access_key_id] = key

    def close(self, access_key_id: str) -> bool:
        """No question about it is answered any more. True when rclone may still believe an earlier answer."""
        self._keys.pop(access_key_id, None)
        return self._believed_until.pop(access_key_id, 0.0) > self._clock()

    def forget_answers(self) -> None:
        """When rclone was started again: it believes nothing yet."""
        self._believed_until.clear()

    async def start(self) -> None:
        """Returns when it can be asked."""
        (self._directory / SOCKET_NAME).unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # By way of the open directory: the whole path may be longer than a socket's address.
            listening.bind(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
        except BaseException:
            listening.close()
            raise
        finally:
            os.close(directory)
        self._server = await asyncio.start_unix_server(self._answer, sock=listening)

    async def stop(self) -> None:
        """Closes all keys. May be called twice."""
        self._keys.clear()
        if self._server is not None:
            self._server.close()
            self._server = None
        (self._directory / SOCKET_NAME).unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _user_of(writer) == os.geteuid():
                async with asyncio.timeout(_QUESTION_SECONDS):
                    writer.write(self._looked_up(await reader.read(MAX_BYTES)))
                    await writer.drain()
        except (TimeoutError, OSError) as error:
            log.info("a question about a key was not answered: %s", type(error).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _looked_up(self, question: bytes) -> bytes:
        try:
            name = json.loads(question)["user"]
        except (ValueError, TypeError, KeyError):
            return b""
        key = self._keys.get(name) if isinstance(name, str) else None
        if key is None:
            return b""
        self._believed_until[key.access_key_id] = self._clock() + BELIEVED_SECONDS
        return json.dumps(key.answer()).encode()


def _user_of(writer: asyncio.StreamWriter) -> int:
    """Who is at the other end, as the kernel says."""
    peer = writer.get_extra_info("socket")
    _, user, _ = _PEER_CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size))
    return int(user)
