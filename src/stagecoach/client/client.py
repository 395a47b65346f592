"""The client: one object per service, one method per thing a person wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from stagecoach.client.errors import ServiceError, TransferFailed
from stagecoach.client.moving import ReportBytes, fetch_object, put_parts
from stagecoach.wire.firecrest import TransferAnswer
from stagecoach.wire.transfers import DownloadUrl, PartsView, TransferDetail, TransferPage, TransferView

FIRST_LOOK_SECONDS = 0.2
LONGEST_LOOK_SECONDS = 5.0
ENDS = frozenset({"done", "failed", "cancelled", "expired"})


class Client:
    """Speaks to one service as the holder of ``token``. Use as ``async with Client(url, token) as client``.

    Every method raises ServiceError for a problem the service answers, httpx.TransportError when it cannot be reached.
    """

    def __init__(self, url: str, token: str, *, timeout_seconds: float = 60.0) -> None:
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"), headers={"Authorization": f"Bearer {token}"}, timeout=timeout_seconds
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def upload(
        self,
        system: str,
        local: Path | str,
        remote_path: str,
        report: ReportBytes | None = None,
        *,
        account: str | None = None,
        on_look: Callable[[TransferDetail], None] | None = None,
    ) -> TransferDetail:
        """Send a file and wait until it is at its place on the system.

        ``report`` gets the bytes put so far; ``on_look`` sees the transfer again and again while the cluster's leg runs.

        Raises:
            TransferFailed: a leg failed; the message says why.
        """
        source = Path(local)
        size_bytes = (await asyncio.to_thread(source.stat)).st_size
        begun = await self.begin_upload(system, remote_path, size_bytes, account=account)
        directives = begun.transfer_directives
        receipt = await put_parts(
            source,
            begun.transfer_id,
            size_bytes,
            directives.max_part_size or 1,
            directives.parts_upload_urls or [],
            directives.complete_upload_url or "",
            report,
        )
        await self.finish(begun.transfer_id, etag=receipt["etag"])
        return await self.wait(begun.transfer_id, on_look)

    async def download(
        self,
        system: str,
        remote_path: str,
        local: Path | str,
        report: ReportBytes | None = None,
        *,
        account: str | None = None,
        on_look: Callable[[TransferDetail], None] | None = None,
    ) -> TransferDetail:
        """Fetch a file; ``local`` is replaced only when all of it is here and verified. Raises as :meth:`upload`."""
        begun = await self.begin_download(system, remote_path, account=account)
        staged = await self.wait(begun.transfer_id, on_look)
        signed = await self.download_url(begun.transfer_id)
        await fetch_object(
            Path(local),
            staged.id,
            staged.size_bytes,
            staged.part_size_bytes,
            signed.download_url,
            signed.head_url,
            report,
        )
        await self.finish(staged.id)
        return await self.transfer(staged.id)

    async def begin_upload(self, system: str, remote_path: str, size_bytes: int, *, account: str | None = None) -> TransferAnswer:
        """Begin an upload: the URLs to put parts to."""
        directives = {"transferMethod": "s3", "fileSize": size_bytes}
        body = {"path": remote_path, "transferDirectives": directives, "account": account}
        answer = await self._ask("POST", f"/filesystem/{system}/transfer/upload", json=body)
        return TransferAnswer.model_validate(answer)

    async def begin_download(self, system: str, remote_path: str, *, account: str | None = None) -> TransferAnswer:
        """Begin a download."""
        body = {"path": remote_path, "transferDirectives": {"transferMethod": "s3"}, "account": account}
        answer = await self._ask("POST", f"/filesystem/{system}/transfer/download", json=body)
        return TransferAnswer.model_validate(answer)

    async def transfers(self, **filters: str | int) -> TransferPage:
        """A page of transfers, newest first; filters as in the API (``system``, ``direction``, ``state``, ``after`` …)."""
        return TransferPage.model_validate(await self._ask("GET", "/transfers", params=filters))

    async def transfer(self, transfer_id: str) -> TransferDetail:
        """One transfer with its story."""
        return TransferDetail.model_validate(await self._ask("GET", f"/transfers/{transfer_id}"))

    async def parts(self, transfer_id: str) -> PartsView:
        """What the store has of an upload, and fresh URLs for the rest."""
        return PartsView.model_validate(await self._ask("GET", f"/transfers/{transfer_id}/parts"))

    async def finish(self, transfer_id: str, *, etag: str | None = None) -> TransferView:
        """Say that the client's side is through; ``etag`` is what the store answered to an upload's completion."""
        answer = await self._ask("POST", f"/transfers/{transfer_id}/finish", json={"etag": etag})
        return TransferView.model_validate(answer)

    async def cancel(self, transfer_id: str) -> TransferView:
        """Cancel; nothing of it stays."""
        return TransferView.model_validate(await self._ask("DELETE", f"/transfers/{transfer_id}"))

    async def download_url(self, transfer_id: str) -> DownloadUrl:
        """A fresh URL of a staged download."""
        return DownloadUrl.model_validate(await self._ask("GET", f"/transfers/{transfer_id}/download-url"))

    async def wait(self, transfer_id: str, on_look: Callable[[TransferDetail], None] | None = None) -> TransferDetail:
        """Until an upload is done or a download is staged. Raises TransferFailed when it ends otherwise."""
        pause = FIRST_LOOK_SECONDS
        while True:
            transfer = await self.transfer(transfer_id)
            if on_look is not None:
                on_look(transfer)
            if transfer.state == "done" or (transfer.direction == "download" and transfer.state == "staged"):
                return transfer
            if transfer.state in ENDS:
                raise TransferFailed(transfer.reason or f"The transfer is {transfer.state}.", transfer.code, transfer)
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, LONGEST_LOOK_SECONDS)

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = await self._http.request(method, path, **options)
        if answer.is_success:
            return answer.json()
        try:
            problem = answer.json()
            code, message = str(problem["code"]), str(problem["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "http_error", f"The service answered {answer.status_code}."
        raise ServiceError(answer.status_code, code, message)
