"""The command ``receive``: a transfer's hidden folder is open for one key, for as long as the command runs.

The receiver itself runs as long as the agent, and is begun again whenever it is not there: a node that cannot receive
says so in its health and does the rest of its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from stagecoach.agent.arrival_watch import FULL, ArrivalWatch
from stagecoach.agent.arrivals import Arrivals, arrival
from stagecoach.agent.arrived_bytes import Arrived, lack_of_room
from stagecoach.agent.joining_early import join_as_they_come
from stagecoach.agent.journal import Ending, Entry
from stagecoach.agent.receiver import Receiver
from stagecoach.agent.receiver_address import ReceiverAddress
from stagecoach.agent.receiver_keys import ReceiverKey
from stagecoach.agent.stopping import Stop, Work
from stagecoach.agent.threads import in_thread
from stagecoach.core.errors import StagecoachError
from stagecoach.wire import agent as wire
from stagecoach.wire.direct_commands import ReceiveSpec

_log = logging.getLogger(__name__)

LOOK_SECONDS = 15.0
_LOOKS_AT_OPEN_FILES = 5
_OPEN_FILES_PAUSE_SECONDS = 0.5
_CLOSED = "The transfer's key was closed; what has arrived stays until it is placed or discarded."


class Receiving:
    """Of one node, between ``start`` and ``stop``; without an ``address`` it does nothing.

    ``tell`` hears how much has arrived for a command. ``least_free_bytes`` as in ``lack_of_room``.
    """

    def __init__(
        self,
        address: ReceiverAddress | None,
        *,
        directory: Path,
        receive: Path,
        arrivals: Arrivals,
        tell: Callable[[str, Arrived], None] = lambda command_id, arrived: None,
        least_free_bytes: int | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._tell = tell
        self._least_free_bytes = least_free_bytes
        self._watches: dict[str, ArrivalWatch] = {}
        self._arrivals = arrivals
        self._address = address
        self._look_seconds = look_seconds
        self._receiver = None
        if address is not None:
            self._receiver = Receiver(directory, receive_directory=receive, host="", port=address.port, names=[address.host])
        self._open: dict[str, ReceiverKey] = {}
        self._serves = asyncio.Event()
        self._trouble = ""
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_offered(self) -> bool:
        """Whether the node's owner wants one."""
        return self._receiver is not None

    @property
    def told(self) -> wire.Receiver | None:
        """What the service is told, and other nodes through it."""
        if self._receiver is None or self._address is None or not self._serves.is_set():
            return None
        return wire.Receiver(
            host=self._address.host, port=self._address.port, certificate_sha256=self._receiver.certificate.sha256
        )

    @property
    def pid(self) -> int | None:
        """Of the receiver's rclone, while it runs."""
        return self._receiver.pid if self._receiver is not None else None

    def health(self) -> list[str]:
        """Sentences for the node's owner."""
        if self._receiver is None:
            return []
        if not self._serves.is_set():
            return [f"The receiver does not run, so nobody can send to this node directly: {self._trouble}"[:500]]
        return self._receiver.health()

    async def start(self) -> None:
        """Tries once before it returns, and goes on trying. On the agent's main thread."""
        if self._receiver is not None:
            await self._try_to_start()
            self._keeper = asyncio.create_task(self._keep(), name="keeper of the receiver")

    async def stop(self) -> None:
        """All keys are dead. May be called twice."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self._serves.clear()
        if self._receiver is not None:
            await self._receiver.stop()

    async def run(self, entry: Entry, work: Work, secret: wire.Secret | None) -> Ending:
        """Until it is stopped, or more has arrived than may. Raises Failed, StagecoachError, OSError."""
        spec = ReceiveSpec.model_validate(entry.spec)
        if self._receiver is None:
            return Ending(1, "command_unsupported", "This node has no receiver: its agent runs without --receiver.")
        if secret is None:
            return Ending(1, "interrupted", "The key of the transfer did not come with the command, or was lost.")
        one = arrival(spec.transfer_id, spec.target_path, is_directory=spec.is_directory)
        folder = await in_thread(lambda: self._arrivals.open(one), "stagecoach-receive")
        if (lack := await in_thread(lambda: lack_of_room(folder, self._least_free_bytes), "stagecoach-receive")) is not None:
            self._receiver.note_full_disk()
            return Ending(1, FULL, lack)
        while not self._serves.is_set():
            if await work.stopped_within(0.1):
                return Ending(143, "interrupted", _CLOSED)
        key = await self._receiver.open_key(folder, ReceiverKey(secret.access_key_id, secret.secret_access_key, folder))
        self._open[entry.id] = key
        stopped = threading.Event()
        joining = asyncio.create_task(in_thread(lambda: join_as_they_come(folder, stopped), "stagecoach-join"))
        ending: Ending | None = None
        try:
            work.started()
            ending = await self._watched(self._receiver, entry.id, folder, spec.max_bytes).until_stopped(work)
        finally:
            stopped.set()
            del self._open[entry.id]
            self._watches.pop(entry.id, None)
            if work.why is not Stop.AGENT_ENDS:  # then the receiver ends, and all its keys with it
                await self._close(self._receiver, key, cut=ending is not None)
                if ending is None:
                    await self._end_of_writing(self._receiver, folder)
            # Whatever comes next in the folder must find it alone there.
            await joining
        if ending is not None and ending.code == FULL:
            self._receiver.note_full_disk()
        return ending or Ending(143, "interrupted", _CLOSED)

    def allow(self, command_id: str, max_bytes: int | None) -> None:
        """From now on so much may arrive for a command that runs; None: it is not bounded."""
        if (watch := self._watches.get(command_id)) is not None:
            watch.allow(max_bytes)

    def _watched(self, receiver: Receiver, command_id: str, folder: Path, max_bytes: int | None) -> ArrivalWatch:
        watch = self._watches[command_id] = ArrivalWatch(
            folder,
            max_bytes,
            self._least_free_bytes,
            tell=lambda arrived: self._tell(command_id, arrived),
            drop_unfinished=receiver.begin_anew,
        )
        return watch

    async def _end_of_writing(self, receiver: Receiver, folder: Path) -> None:
        """A closed key lets nobody in, and whoever was in goes on: into files that nobody measures, or finds, any more."""
        for left in reversed(range(_LOOKS_AT_OPEN_FILES)):
            try:
                if not await in_thread(lambda: receiver.has_open_below(folder), "stagecoach-receive"):
                    return
                if not left:
                    _log.warning("Somebody goes on sending with a closed key; all that is being sent is broken off.")
                    await receiver.begin_anew()
            except (StagecoachError, OSError) as failure:
                _log.warning("The receiver cannot be looked at after a key was closed: %s", failure)
                return
            await asyncio.sleep(_OPEN_FILES_PAUSE_SECONDS)

    async def _close(self, receiver: Receiver, key: ReceiverKey, *, cut: bool = False) -> None:
        try:
            await (receiver.cut_key if cut else receiver.close_key)(key.access_key_id)
        except StagecoachError as failure:
            # It does not run, so the key opens nothing; the keeper begins it again.
            _log.warning("The receiver does not come back after a key was closed: %s", failure.message)

    async def _keep(self) -> None:
        """Begins it anew when it has given up, with the keys that were open."""
        while True:
            await asyncio.sleep(self._look_seconds)
            if self._serves.is_set() and self._receiver is not None and self._receiver.gave_up:
                self._serves.clear()
                self._trouble = "it has ended too often."
                with contextlib.suppress(StagecoachError):
                    await self._receiver.stop()
            if not self._serves.is_set():
                await self._try_to_start()

    async def _try_to_start(self) -> None:
        if self._receiver is None:
            return
        try:
            await self._receiver.start()
            for command_id, key in list(self._open.items()):
                try:
                    await self._receiver.open_key(key.folder, key)
                except StagecoachError as failure:
                    # Its folder's affair, or its sender's: the others are not to suffer for it.
                    _log.warning("The key of command %s cannot be opened again: %s", command_id, failure.message)
                if self._open.get(command_id) is not key:  # it ended meanwhile
                    await self._close(self._receiver, key)
        except StagecoachError as failure:
            if failure.message != self._trouble:
                _log.error("The receiver cannot start: %s", failure.message)
            self._trouble = failure.message
        except OSError as error:
            self._trouble = f"{error.filename or 'its directory'}: {error.strerror}."
            _log.error("The receiver cannot start: %s", self._trouble)
        else:
            _log.info("The receiver serves at port %d.", self._receiver.port)
            self._trouble = ""
            self._serves.set()
