"""The client: one object per service, one method per thing a person wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from stagecoach.client.errors import ServiceError, TransferFailed
from stagecoach.client.journal import Journal, Record, file_identity, state_home
from stagecoach.client.legs import UploadLeg, fetch_object
from stagecoach.client.moving import ReportBytes
from stagecoach.client.results import CarriedTransfer
from stagecoach.client.service import ENDS, OnLook, Service, require_hope
from stagecoach.wire.firecrest import S3Directives, TransferAnswer
from stagecoach.wire.transfers import TransferView

OnBegun = Callable[[str], None]
"""Gets the transfer's id as soon as there is one."""
T = TypeVar("T")


class Client(Service):
    """Speaks to one service as the holder of ``token``. Use as ``async with Client(url, token) as client``.

    ``upload``, ``download`` and ``resume`` take three callbacks: ``report`` gets the bytes of the client's own leg so
    far, ``on_look`` sees the transfer again and again while the cluster's leg runs, ``on_begun`` gets its id. Whatever
    ends one of them before its time (a cancelled task, a crash), ``resume`` goes on with the transfer later.

    Raises:
        ServiceError: the service answered with a problem, or cannot be reached.
        TransferFailed: a leg failed; the message says why.
    """

    def __init__(self, url: str, token: str, *, state_directory: Path | None = None, **options: Any) -> None:
        super().__init__(url, token, **options)
        self._state_directory = state_directory or state_home()

    async def upload(
        self,
        system: str,
        local: Path | str,
        remote_path: str,
        report: ReportBytes | None = None,
        *,
        account: str | None = None,
        on_look: OnLook | None = None,
        on_begun: OnBegun | None = None,
    ) -> CarriedTransfer:
        """Send a file and wait until it is at its place on the system."""
        source = await asyncio.to_thread(_absolute, Path(local))
        identity = await asyncio.to_thread(_source_identity, source)
        record = Record(self.url, system, "upload", remote_path, str(source), identity)
        beginning = self.begin_upload(system, remote_path, identity[0], account=account)
        begun = await self._begun(beginning, record, on_begun)
        return await self._send(begun.transfer_id, source, identity, report, on_look, begun.transfer_directives)

    async def download(
        self,
        system: str,
        remote_path: str,
        local: Path | str,
        report: ReportBytes | None = None,
        *,
        account: str | None = None,
        on_look: OnLook | None = None,
        on_begun: OnBegun | None = None,
    ) -> CarriedTransfer:
        """Fetch a file; ``local`` is replaced only when all of it is here and verified."""
        target = await asyncio.to_thread(_absolute, Path(local))
        if not await asyncio.to_thread(target.parent.is_dir):
            raise TransferFailed(f"There is no directory {target.parent} to put the file into.", "target_missing_directory")
        if await asyncio.to_thread(target.is_dir):
            raise TransferFailed(f"{target} is a directory; name the file.", "target_is_directory")
        record = Record(self.url, system, "download", remote_path, str(target))
        begun = await self._begun(self.begin_download(system, remote_path, account=account), record, on_begun)
        return await self._receive(begun.transfer_id, target, report, on_look)

    async def resume(
        self,
        transfer_id: str,
        local: Path | str | None = None,
        report: ReportBytes | None = None,
        *,
        on_look: OnLook | None = None,
    ) -> CarriedTransfer:
        """Go on with a transfer that was interrupted, from any process; what is done already is not done again.

        ``local`` is needed where this machine's journal does not know the transfer, or the file was moved.
        """
        journal = Journal(self._state_directory, transfer_id)
        record = journal.read()
        try:
            transfer = await self.transfer(transfer_id)
        except ServiceError as error:
            if error.status == 404 and record is not None and record.service != self.url:
                error.message += f" It was begun at {record.service}; this is {self.url}."
            raise
        if transfer.state in ENDS:
            journal.remove()
            require_hope(transfer)
            return CarriedTransfer.of(transfer, None)
        is_upload = transfer.direction == "upload"
        if is_upload and transfer.state not in {"preparing", "receiving"}:
            journal.remove()
            return CarriedTransfer.of(await self.wait(transfer_id, on_look), None)
        if local is None and record is None:
            message = "This machine has no journal of the transfer: say which local file it is about."
            raise TransferFailed(message, "local_path_unknown", transfer_id=transfer_id)
        path = await asyncio.to_thread(_absolute, Path(local if local is not None else record.local if record else ""))
        if not is_upload:
            journal.write(Record(self.url, transfer.system, "download", transfer.path, str(path)))
            return await self._receive(transfer_id, path, report, on_look)
        await self.wait_for(transfer_id, set(), {"receiving", "staged", "queued", "moving", "done"})
        identity = await asyncio.to_thread(_source_identity, path)
        if record is not None and record.source is not None:
            identity = record.source
        if identity[0] != transfer.size_bytes:
            message = f"The file has {identity[0]} bytes where the upload was begun with {transfer.size_bytes}."
            raise TransferFailed(message, "source_changed", transfer_id=transfer_id)
        journal.write(Record(self.url, transfer.system, "upload", transfer.path, str(path), identity))
        return await self._send(transfer_id, path, identity, report, on_look)

    async def cancel(self, transfer_id: str) -> TransferView:
        """Cancel; nothing of it stays, here or there."""
        cancelled = await super().cancel(transfer_id)
        journal = Journal(self._state_directory, transfer_id)
        record = journal.read()
        if record is not None and record.direction == "download":
            hidden = (await asyncio.to_thread(Path(record.local).resolve)).parent / f".stagecoach-{transfer_id}.part"
            with contextlib.suppress(OSError):
                await asyncio.to_thread(hidden.unlink)
        journal.remove()
        return cancelled

    async def _begun(
        self, beginning: Coroutine[Any, Any, TransferAnswer], record: Record, on_begun: OnBegun | None
    ) -> TransferAnswer:
        begun, was_cancelled = await _to_its_end(beginning)
        Journal(self._state_directory, begun.transfer_id).write(record)
        if on_begun is not None:
            on_begun(begun.transfer_id)
        if was_cancelled:
            raise asyncio.CancelledError
        return begun

    async def _send(
        self,
        transfer_id: str,
        source: Path,
        identity: list[int],
        report: ReportBytes | None,
        on_look: OnLook | None,
        begun: S3Directives | None = None,
    ) -> CarriedTransfer:
        journal = Journal(self._state_directory, transfer_id)
        with journal.locked(), _forgotten_when_over(journal):
            receipt = await UploadLeg(self, journal, source, identity, begun).run(report)
            # From here on it is the service's affair: nothing is left to resume on this machine.
            journal.remove()
        return CarriedTransfer.of(await self.wait(transfer_id, on_look), receipt)

    async def _receive(
        self, transfer_id: str, target: Path, report: ReportBytes | None, on_look: OnLook | None
    ) -> CarriedTransfer:
        journal = Journal(self._state_directory, transfer_id)
        with journal.locked(), _forgotten_when_over(journal):
            staged = await self.wait(transfer_id, on_look)
            receipt = await fetch_object(self, journal, target, staged, report)
            try:
                await self.finish(transfer_id)
            except ServiceError as error:
                # It expired or was cancelled at the last moment; the file is here and verified all the same.
                if error.code != "wrong_state":
                    raise
            journal.remove()
        return CarriedTransfer.of(await self.transfer(transfer_id), receipt)


@contextlib.contextmanager
def _forgotten_when_over(journal: Journal) -> Iterator[None]:
    """What the service has ended cannot be resumed, so its journal goes."""
    try:
        yield
    except TransferFailed as failure:
        if failure.transfer is not None:
            journal.remove()
        raise


async def _to_its_end(beginning: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """Its result, and whether we were cancelled meanwhile: a transfer of which nobody knows the id cannot be resumed."""
    task, was_cancelled = asyncio.ensure_future(beginning), False
    try:
        return await asyncio.shield(task), False
    except asyncio.CancelledError:
        was_cancelled = True
    return await task, was_cancelled


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _source_identity(source: Path) -> list[int]:
    try:
        if not source.is_file():
            found = "is not a regular file" if source.exists() else "does not exist"
            raise TransferFailed(f"{source} {found}.", "source_missing")
        return file_identity(source)
    except OSError as error:
        raise TransferFailed(f"{source} cannot be read ({error.strerror}).", "permission_denied") from None
