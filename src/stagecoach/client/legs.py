"""The client's leg of a transfer, from wherever it stands to its end: parts to the store, or the object to a file.

The mover is patient with single requests; here a whole leg is taken up again after a longer breakdown of the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from stagecoach.client.errors import ServiceError, TransferFailed
from stagecoach.client.journal import Journal
from stagecoach.client.moving import Complete, Receipt, Renew, ReportBytes, Ticket, fetch_ticket, move, put_ticket
from stagecoach.client.service import Service, require_hope
from stagecoach.client.sources import Source
from stagecoach.wire.firecrest import S3Directives
from stagecoach.wire.transfers import TransferDetail

PAUSES_SECONDS = (2.0, 10.0, 30.0, 60.0, 120.0)
MAY_PASS = frozenset({"store_unreachable", "ticket_expired"})


class UploadIsComplete(Exception):
    """There is nothing left to put: this client, another one or the service completed the upload already."""


class UploadLeg:
    """File or directory → store. ``begun`` has the URLs of a new upload; without it the store is asked what it has already."""

    def __init__(
        self,
        service: Service,
        journal: Journal,
        source: Source,
        begun: S3Directives | None = None,
        connections: int | None = None,
    ) -> None:
        self._service = service
        self._connections = connections
        self._journal = journal
        self._source = source
        self._is_new = begun is not None
        self._is_finished = False
        self._takes_digests = True
        self._part_size_bytes = (begun.max_part_size if begun else None) or 1
        self._part_urls = list((begun.parts_upload_urls if begun else None) or [])
        self._complete_url = (begun.complete_upload_url if begun else None) or ""

    async def run(self, report: ReportBytes | None) -> Receipt | None:
        """Puts what is missing, completes, tells the service. None when nothing was left to put.

        Raises:
            TransferFailed; ServiceError.
        """
        receipt = self._journal.receipt()
        try:
            if receipt is None:
                receipt = await self._put(report)
            etag, part_crc32 = receipt["etag"], receipt.get("part_crc32")
        except TransferFailed as failure:
            failure.transfer_id = self._journal.transfer_id
            raise
        except UploadIsComplete:
            part_count = -(-self._source.size_bytes // self._part_size_bytes) or 1
            etag, part_crc32 = self._journal.parts_etag(part_count), self._journal.part_crc32(part_count)
        if not self._is_finished:
            await self._finish(etag, part_crc32)
        return receipt

    async def _complete(self, part_crc32: list[str] | None) -> bool:
        """By the service, which so knows what the parts are before its worker can see the object and send the job after it."""
        if part_crc32 is None:
            return False
        try:
            await self._service.finish(self._journal.transfer_id, part_crc32=part_crc32)
        except ServiceError as error:
            # It takes no digests any more, or cannot be reached: the store is as good, and what is wrong comes up again there.
            self._takes_digests = error.code != "wrong_state"
            return False
        self._is_finished = True
        return True

    async def _finish(self, etag: str | None, part_crc32: list[str] | None) -> None:
        if part_crc32 is not None and self._takes_digests:
            try:
                await self._service.finish(self._journal.transfer_id, etag=etag, part_crc32=part_crc32)
            except ServiceError as error:
                if error.code != "wrong_state":
                    raise
            else:
                return
        # The staging job that has its ticket already (it waits for the object by itself, or the service saw the object first)
        # proves the parts by their MD5.
        await self._service.finish(self._journal.transfer_id, etag=etag)

    async def _put(self, report: ReportBytes | None) -> Receipt:
        try:
            return await _persist(self._service, self._journal, self._ticket, self._renewed, report, self._complete)
        except TransferFailed as failure:
            if failure.code == "store_refused":
                # The upload was cancelled, or completed by a request whose answer was lost: the service knows which.
                await self._ask_parts()
            raise

    async def _ticket(self) -> Ticket:
        """For an attempt at the whole leg."""
        is_new, self._is_new = self._is_new, False
        if not await asyncio.to_thread(self._source.is_unchanged):
            message = "The source changed since the upload began; what is in the staging area belongs to the old one."
            raise TransferFailed(message, "source_changed", transfer_id=self._journal.transfer_id)
        if is_new:
            return self._current()
        return await self._renewed(take_over=True)

    async def _renewed(self, *, take_over: bool = False) -> Ticket:
        await self._ask_parts(take_over=take_over)
        return self._current()

    def _current(self) -> Ticket:
        urls = list(self._part_urls)
        ticket = put_ticket(self._source, self._journal.transfer_id, self._part_size_bytes, urls, self._complete_url)
        return {**ticket, "concurrency": self._connections}

    async def _ask_parts(self, *, take_over: bool = False) -> None:
        try:
            view = await self._service.parts(self._journal.transfer_id)
        except ServiceError as error:
            if error.code != "wrong_state":
                raise
            transfer = await self._service.transfer(self._journal.transfer_id)
            self._part_size_bytes = transfer.part_size_bytes
            require_hope(transfer)
            raise UploadIsComplete from None
        self._part_size_bytes, self._complete_url = view.part_size_bytes, view.complete_upload_url
        # A part that the store has needs no URL of its own, but its place in the list.
        urls = self._part_urls or [view.complete_upload_url] * view.part_count
        for part in view.missing:
            urls[part.number - 1] = part.url
        self._part_urls = urls
        if take_over:
            await asyncio.to_thread(self._journal.take_over, self._source, view)


async def fetch_object(
    service: Service,
    journal: Journal,
    target: Path,
    transfer: TransferDetail,
    report: ReportBytes | None,
    connections: int | None = None,
) -> Receipt:
    """Store → file or directory. Raises TransferFailed, ServiceError."""
    is_tree = transfer.archive is not None
    place = await asyncio.to_thread(real_target, target, is_tree=is_tree)

    async def ticket() -> Ticket:
        signed = await service.download_url(transfer.id)
        size, part_size = transfer.size_bytes or 0, transfer.part_size_bytes
        found = fetch_ticket(place, transfer.id, size, part_size, signed.download_url, signed.head_url, is_tree=is_tree)
        return {**found, "concurrency": connections}

    try:
        return await _persist(service, journal, ticket, ticket, report)
    except TransferFailed as failure:
        if failure.code in {"store_refused", "object_missing"}:
            require_hope(await service.transfer(transfer.id))
        raise


def real_target(target: Path, *, is_tree: bool) -> Path:
    """A link at the target of a file stays one: what it points to is replaced. A directory only goes where nothing is."""
    return target.parent.resolve() / target.name if is_tree else target.resolve()


async def _persist(
    service: Service,
    journal: Journal,
    ticket: Callable[[], Awaitable[Ticket]],
    renew: Renew,
    report: ReportBytes | None,
    complete: Complete | None = None,
) -> Receipt:
    for pause in (*PAUSES_SECONDS, None):
        receipt = await move(await ticket(), journal.directory, renew, report, complete)
        if receipt["ok"]:
            return receipt
        if receipt["code"] not in MAY_PASS or pause is None:
            break
        await service.clock.sleep(pause)
    raise TransferFailed(str(receipt["message"]), str(receipt["code"]), transfer_id=journal.transfer_id)
