"""Compares the parts that have arrived with those of the source, by their MD5s, and so knows which are missing.

The receiver makes its digests of what is on its disk; ours were made when the parts were read to be sent, or are made now.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from threading import Lock

from stagecoach.agent.parts import PartedFile, PartName, part_name, written_list
from stagecoach.agent.parts_at_receiver import PartsAtReceiver, ReceiverRefuses
from stagecoach.agent.parts_source import PartsSource, Source, SourceChanged
from stagecoach.agent.rclone_words import Trouble
from stagecoach.agent.threads import in_thread
from stagecoach.mover.stagecoach_mover import Failed

log = logging.getLogger(__name__)

_AT_ONCE = 8
# Another connection for so few would take longer than they.
_LEAST_OF_A_CONNECTION = 4
_LASTING = frozenset({"key_refused", "certificate_wrong"})
CHANGED = Trouble("source_changed", "The source changed while it was sent.", retryable=False)


class PartsCheck:
    """Of one transfer's parts. ``connect`` gives a new connection to the receiver."""

    def __init__(self, sources: Sequence[Source], served: PartsSource, connect: Callable[[], PartsAtReceiver]) -> None:
        self._files = [source.file for source in sources]
        self._served = served
        self._connect = connect
        self._compared_before = dict.fromkeys(range(1, len(self._files) + 1), 0)
        self._stored: bytes | None = None
        self._storing: asyncio.Future[None] | None = None
        self.has_begun = False
        """The receiver has a list, so there may be parts too: it is stored before them."""
        self.missing = {PartName(number, part) for number, file in enumerate(self._files, 1) for part in range(1, file.count + 1)}
        self.size_bytes = sum(file.size_bytes for file in self._files)

    @property
    def files(self) -> Sequence[PartedFile]:
        """In the order of their numbers."""
        return self._files

    @property
    def arrived_bytes(self) -> int:
        """Of parts that were compared."""
        return self.size_bytes - sum(self._files[name.file - 1].length_bytes(name.part) for name in self.missing)

    async def look(self, names: Iterable[PartName], stop: asyncio.Event) -> Trouble | None:
        """Looks at these parts at the receiver; those that are right are missing no more. Ends early when ``stop`` is set."""
        wanted = sorted(names)
        right: list[PartName] = []
        workers = max(1, min(_AT_ONCE, len(wanted) // _LEAST_OF_A_CONNECTION))
        look = functools.partial(self._look, _Queue(wanted, stop), right.append)
        try:
            await asyncio.gather(*(in_thread(look, "stagecoach-parts") for _ in range(workers)))
        except ReceiverRefuses as refused:
            return _trouble(refused)
        except SourceChanged:
            return CHANGED
        except Failed as failed:
            return Trouble(failed.code, failed.message, retryable=False)
        except OSError as error:
            return Trouble("source_unreadable", f"The source cannot be read ({error.strerror}).", retryable=False)
        finally:
            self.missing -= set(right)
        return None

    async def recall(self) -> Trouble | None:
        """What an earlier try has compared of the very same files: where such parts are gone, they are joined already."""

        def fetch() -> list[PartedFile] | None:
            with self._connect() as receiver:
                return receiver.stored_list()

        await self._settled()
        try:
            stored = await in_thread(fetch, "stagecoach-parts")
        except ReceiverRefuses as refused:
            return _trouble(refused)
        self.has_begun = stored is not None
        for number, (file, before) in enumerate(zip(self._files, stored or [], strict=False), 1):
            if replace(before, compared_parts=0) == file:
                self._compared_before[number] = before.compared_parts
        return None

    async def say(self) -> Trouble | None:
        """Has the receiving node know how far the files were compared, if it does not: so far it may join them."""
        await self._settled()
        written = written_list([self._as_compared(number, file) for number, file in enumerate(self._files, 1)])
        if written == self._stored:
            return None

        def store() -> None:
            with self._connect() as receiver:
                receiver.store_list(written)
            self._stored = written

        self._stored = None
        self._storing = asyncio.ensure_future(in_thread(store, "stagecoach-parts"))
        try:
            await asyncio.shield(self._storing)
        except ReceiverRefuses as refused:
            return _trouble(refused)
        return None

    async def _settled(self) -> None:
        """An earlier list that nobody waits for any more is stored, or is not: after a later one it would undo that."""
        if self._storing is not None:
            await asyncio.wait({self._storing})
            if not self._storing.cancelled() and (error := self._storing.exception()) is not None:
                log.info("an earlier list of parts was not stored: %s", error)
            self._storing = None

    def _as_compared(self, number: int, file: PartedFile) -> PartedFile:
        first_missing = min((name.part for name in self.missing if name.file == number), default=file.count + 1)
        return replace(file, compared_parts=first_missing - 1)

    def _look(self, names: Iterable[PartName], is_right: Callable[[PartName], None]) -> None:
        with self._connect() as receiver:
            for name in names:
                file = self._files[name.file - 1]
                arrived = receiver.arrived(f"{file.folder(name.file)}/{part_name(name.part)}")
                if arrived is None:
                    if name.part <= self._compared_before[name.file]:
                        is_right(name)
                    continue
                if arrived.size_bytes != file.length_bytes(name.part):
                    continue
                if arrived.md5 == self._served.digest(name):
                    is_right(name)
                else:
                    log.info("part %d of file %d at the receiver is another one than the source's", name.part, name.file)


def _trouble(refused: ReceiverRefuses) -> Trouble:
    return Trouble(refused.code, str(refused), retryable=refused.code not in _LASTING)


class _Queue:
    """Gives each part to one thread, until ``stop`` is set."""

    def __init__(self, names: Sequence[PartName], stop: asyncio.Event) -> None:
        self._names = iter(names)
        self._stop = stop
        self._lock = Lock()

    def __iter__(self) -> Iterator[PartName]:
        return self

    def __next__(self) -> PartName:
        with self._lock:
            if self._stop.is_set():
                raise StopIteration
            return next(self._names)
