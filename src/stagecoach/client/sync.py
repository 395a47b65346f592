"""The same client for programs that are not asynchronous: each call runs in an event loop of a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from stagecoach.client.asking import TokenSource
from stagecoach.client.client import Client as AsyncClient
from stagecoach.client.client import OnBegun
from stagecoach.client.moving import ReportBytes
from stagecoach.client.places import Place
from stagecoach.client.results import CarriedTransfer
from stagecoach.client.service import OnLook
from stagecoach.client.sync_nodes import SyncNodeQuestions
from stagecoach.wire.filesystem import ListingAnswer
from stagecoach.wire.transfers import DownloadUrl, NetworkCheckView, TransferDetail, TransferPage, TransferView

T = TypeVar("T")
PATIENCE_SECONDS = 30.0


class Client(SyncNodeQuestions):
    """Use as ``with Client(url, token) as client``. Callbacks are called in the other thread.

    Ctrl-C in a call stops it cleanly; ``resume`` goes on later.
    """

    _client: AsyncClient

    def __init__(self, url: str, token: str | TokenSource | None, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stagecoach-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(_made(url, token, options))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread."""
        if not self._loop.is_closed():
            self._run(self._client.aclose())
            self._stop()

    def upload(
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

        ``sha256`` (hex), where a file's is known, is compared there.
        """
        return self._run(
            self._client.upload(
                system, local, remote_path, report, account=account, sha256=sha256, on_look=on_look, on_begun=on_begun
            )
        )

    def download(
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
        """Fetch a file (with ``archive`` a directory); it is at ``local`` only when all of it is here and verified."""
        options: dict[str, Any] = {"account": account, "archive": archive, "on_look": on_look, "on_begun": on_begun}
        return self._run(self._client.download(system, remote_path, local, report, **options))

    def send(
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
        """Have a file (with ``archive`` a directory) go from one system to another, and wait until it is at its place."""
        options: dict[str, Any] = {"account": account, "archive": archive, "on_look": on_look, "on_begun": on_begun}
        options |= {"road": road, "rate_limit": rate_limit}
        return self._run(self._client.send(source, destination, **options))

    def resume(
        self,
        transfer_id: str,
        local: Path | str | None = None,
        report: ReportBytes | None = None,
        *,
        on_look: OnLook | None = None,
    ) -> CarriedTransfer:
        """Go on with a transfer that was interrupted."""
        return self._run(self._client.resume(transfer_id, local, report, on_look=on_look))

    def list_directory(
        self,
        system: str,
        path: str,
        *,
        show_hidden: bool = False,
        recursive: bool = False,
        numeric_ids: bool = False,
        dereference: bool = False,
    ) -> ListingAnswer:
        """All that a directory of a system holds (``output``), or the one file."""
        return self._run(
            self._client.list_directory(
                system,
                path,
                show_hidden=show_hidden,
                recursive=recursive,
                numeric_ids=numeric_ids,
                dereference=dereference,
            )
        )

    def transfers(self, **filters: str | int | list[str]) -> TransferPage:
        """A page of transfers, newest first."""
        return self._run(self._client.transfers(**filters))

    def transfer(self, transfer_id: str) -> TransferDetail:
        """One transfer with its story."""
        return self._run(self._client.transfer(transfer_id))

    def wait(self, transfer_id: str, on_look: OnLook | None = None) -> TransferDetail:
        """Until an upload is done or a download is staged."""
        return self._run(self._client.wait(transfer_id, on_look))

    def retry(self, transfer_id: str) -> TransferView:
        """Have a failed transfer go on from what is staged."""
        return self._run(self._client.retry(transfer_id))

    def stop(self, transfer_id: str) -> TransferView:
        """Stop what runs and keep what has arrived; ``retry`` goes on from there."""
        return self._run(self._client.stop(transfer_id))

    def limit(self, transfer_id: str, bytes_per_second: int | None) -> TransferView:
        """From now on at most so fast, straight between two nodes; None: as fast as it goes."""
        return self._run(self._client.limit(transfer_id, bytes_per_second))

    def download_url(self, transfer_id: str, *, ttl_seconds: int | None = None) -> DownloadUrl:
        """A fresh URL of a staged download, which whoever has it may use for so long."""
        return self._run(self._client.download_url(transfer_id, ttl_seconds=ttl_seconds))

    def network_check(self, transfer_id: str) -> NetworkCheckView:
        """What was found of the way between two nodes."""
        return self._run(self._client.network_check(transfer_id))

    def cancel(self, transfer_id: str) -> TransferView:
        """Cancel; nothing of it stays."""
        return self._run(self._client.cancel(transfer_id))

    def _run(self, asked: Coroutine[Any, Any, T]) -> T:
        ended = threading.Event()

        async def whole() -> T:
            try:
                return await asked
            finally:
                ended.set()

        running = asyncio.run_coroutine_threadsafe(whole(), self._loop)
        try:
            return running.result()
        except KeyboardInterrupt:
            running.cancel()
            ended.wait(PATIENCE_SECONDS)  # the mover writes its journal
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _made(url: str, token: str | TokenSource | None, options: dict[str, Any]) -> AsyncClient:
    return AsyncClient(url, token, **options)
