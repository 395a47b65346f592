"""The client: one object per service, one method per thing a person wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from stagecoach.client.asking import TokenSource
from stagecoach.client.errors import ServiceError, TransferFailed
from stagecoach.client.journal import Journal, Record, state_home
from stagecoach.client.legs import UploadLeg, fetch_object, real_target
from stagecoach.client.moving import ReportBytes
from stagecoach.client.places import Place
from stagecoach.client.results import CarriedTransfer
from stagecoach.client.service import ENDS, OnLook, Service, require_hope
from stagecoach.client.sources import Source, look_at_source
from stagecoach.client.targets import remove_hidden, require_place
from stagecoach.mover.stagecoach_mover import MOST_CONNECTIONS
from stagecoach.wire.firecrest import S3Directives, TransferAnswer
from stagecoach.wire.transfers import TransferDetail, TransferView

OnBegun = Callable[[str], None]
"""Gets the transfer's id as soon as there is one."""
T = TypeVar("T")


class Client(Service):
    """Speaks to one service as the holder of ``token``. Use as ``async with Client(url, token) as client``.

    ``token`` may be a TokenSource, which is asked for each request: for tokens that run out before a transfer is done.
    ``connections`` to the store at once for one transfer, 1 to 64; without it, as many as measurably help.

    ``upload``, ``download`` and ``resume`` take three callbacks: ``report`` gets the bytes of the client's own leg so
    far, ``on_look`` sees the transfer again and again while the cluster's leg runs, ``on_begun`` gets its id. Whatever
    ends one of them before its time (a cancelled task, a crash), ``resume`` goes on with the transfer later. ``send``,
    from one system to another, has no leg of the client's.

    Raises:
        ServiceError: the service answered with a problem, or cannot be reached.
        TransferFailed: a leg failed; the message says why.
    """

    def __init__(
        self,
        url: str,
        token: str | TokenSource | None,
        *,
        state_directory: Path | None = None,
        connections: int | None = None,
        **options: Any,
    ) -> None:
        if connections is not None and not 1 <= connections <= MOST_CONNECTIONS:
            raise ValueError(f"connections: {connections} is not between 1 and {MOST_CONNECTIONS}")
        super().__init__(url, token, **options)
        self._connections = connections
        self._state_directory = state_directory or state_home()

    async def upload(
        self,
        system: str,
        local: Path | str,
        remote_path: str,
        report: ReportBytes | None = None,
        *,
        account: str | None = None,
        sha256: str | None = None,
        on_look: OnLook | None = None,
        on_begun: OnBegun | None = None,
    ) -> CarriedTransfer:
        """Send a file, or a directory with all that is in it, and wait until it is at its place on the system.

        A directory becomes a new one there: nothing but an empty directory may stand at ``remote_path``.

        Every part is compared all the way in any case. ``sha256`` (hex), where a file's is known from elsewhere, proves on
        the cluster that the file is still what it was when that was computed.
        """
        path = await asyncio.to_thread(_absolute, Path(local))
        source = await asyncio.to_thread(look_at_source, path)
        if source.is_tree and sha256 is not None:
            raise TransferFailed("A directory has no SHA-256; it can be given for a file.", "digest_refused")
        record = Record(self.url, system, "upload", remote_path, str(path), source.identity)
        beginning = self.begin_upload(
            system, remote_path, source.size_bytes, account=account, archive=source.is_tree, sha256=sha256
        )
        begun = await self._begun(beginning, record, on_begun)
        if source.is_tree and on_look is not None:
            # Only now is it known how much there is to send.
            on_look(await self.transfer(begun.transfer_id))
        # One that was begun before and takes no parts any more has no URLs: then the service is asked where it stands.
        directives = begun.transfer_directives if begun.transfer_directives.parts_upload_urls else None
        return await self._send(begun.transfer_id, source, report, on_look, directives)

    async def download(
        self,
        system: str,
        remote_path: str,
        local: Path | str,
        report: ReportBytes | None = None,
        *,
        account: str | None = None,
        archive: bool = False,
        on_look: OnLook | None = None,
        on_begun: OnBegun | None = None,
    ) -> CarriedTransfer:
        """Fetch a file; ``local`` is replaced only when all of it is here and verified.

        With ``archive`` it is a directory that is fetched, with all that is in it; nothing but an empty directory may
        stand at ``local``.
        """
        target = await asyncio.to_thread(_absolute, Path(local))
        await asyncio.to_thread(require_place, target, is_tree=archive)
        record = Record(self.url, system, "download", remote_path, str(target))
        beginning = self.begin_download(system, remote_path, account=account, archive=archive)
        begun = await self._begun(beginning, record, on_begun)
        return await self._receive(begun.transfer_id, target, report, on_look)

    async def send(
        self,
        source: Place | str,
        destination: Place | str,
        *,
        account: str | None = None,
        archive: bool = False,
        road: str | None = None,
        rate_limit: int | None = None,
        on_look: OnLook | None = None,
        on_begun: OnBegun | None = None,
    ) -> TransferDetail:
        """Have a file go from one system to another, each written ``SYSTEM:/path``, and wait until it is at its place.

        With ``archive`` it is a directory, which becomes a new one there. Between two nodes ``road`` may be ``direct``, which
        insists on going straight, or ``staged``; ``rate_limit`` is in bytes a second. No byte passes through this machine:
        who stops waiting stops nothing, and ``wait`` or ``resume`` waits again.
        """
        beginning = self.begin_transfer(source, destination, account=account, archive=archive, road=road, rate_limit=rate_limit)
        begun, was_cancelled = await _to_its_end(beginning)
        if on_begun is not None:
            on_begun(begun.transfer.id)
        if was_cancelled:
            raise asyncio.CancelledError
        return await self.wait(begun.transfer.id, on_look)

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
            if transfer.retry_until is None:
                journal.remove()
            require_hope(transfer)
            return CarriedTransfer.of(transfer, None)
        is_upload = transfer.direction == "upload"
        has_no_client = transfer.source is not None and transfer.destination is not None
        if has_no_client or (is_upload and transfer.state not in {"preparing", "receiving"}):
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
        try:
            source = await asyncio.to_thread(look_at_source, path)
        except TransferFailed as failure:
            failure.transfer_id = transfer_id
            raise
        if source.is_tree and transfer.archive is None:
            message = f"{path} is a directory, and the upload was begun with a file."
            raise TransferFailed(message, "source_changed", transfer_id=transfer_id)
        if record is not None and record.source is not None:
            source = replace(source, identity=record.source)
        if source.size_bytes != transfer.size_bytes:
            message = f"There are {source.size_bytes} bytes to send where the upload was begun with {transfer.size_bytes}."
            raise TransferFailed(message, "source_changed", transfer_id=transfer_id)
        journal.write(Record(self.url, transfer.system, "upload", transfer.path, str(path), source.identity))
        return await self._send(transfer_id, source, report, on_look)

    async def cancel(self, transfer_id: str) -> TransferView:
        """Cancel; nothing of it stays, here or there."""
        cancelled = await super().cancel(transfer_id)
        journal = Journal(self._state_directory, transfer_id)
        record = journal.read()
        if record is not None and record.direction == "download":
            is_tree = cancelled.archive is not None
            place = await asyncio.to_thread(real_target, Path(record.local), is_tree=is_tree)
            await asyncio.to_thread(remove_hidden, place.parent, transfer_id)
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
        source: Source,
        report: ReportBytes | None,
        on_look: OnLook | None,
        begun: S3Directives | None = None,
    ) -> CarriedTransfer:
        journal = Journal(self._state_directory, transfer_id)
        with journal.locked(), _forgotten_when_over(journal):
            receipt = await UploadLeg(self, journal, source, begun, self._connections).run(report)
            # From here on it is the service's affair: nothing is left to resume on this machine.
            journal.remove()
        return CarriedTransfer.of(await self.wait(transfer_id, on_look), receipt)

    async def _receive(
        self, transfer_id: str, target: Path, report: ReportBytes | None, on_look: OnLook | None
    ) -> CarriedTransfer:
        journal = Journal(self._state_directory, transfer_id)
        with journal.locked(), _forgotten_when_over(journal):
            staged = await self.wait(transfer_id, on_look)
            receipt = await fetch_object(self, journal, target, staged, report, self._connections)
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
    """What the service has ended for good cannot be resumed, so its journal goes."""
    try:
        yield
    except TransferFailed as failure:
        if failure.transfer is not None and failure.transfer.retry_until is None:
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
