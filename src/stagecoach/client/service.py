"""The service's questions and answers, one method a route."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from stagecoach.client.asking import Asking, Clock, TokenSource
from stagecoach.client.errors import ServiceError, TransferFailed
from stagecoach.client.nodes import NodeQuestions
from stagecoach.client.places import Place, the_place
from stagecoach.wire.filesystem import ListingAnswer
from stagecoach.wire.firecrest import TransferAnswer
from stagecoach.wire.identity import AuthMethods
from stagecoach.wire.new_transfers import BegunTransfer
from stagecoach.wire.transfers import DownloadUrl, NetworkCheckView, PartsView, TransferDetail, TransferPage, TransferView

FIRST_LOOK_SECONDS = 0.2
LONGEST_LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
# A transfer of hours is not given up because the service is restarted or a laptop changes its network.
LONG_PATIENCE_SECONDS = 1800.0
PREPARING_PATIENCE_SECONDS = 300.0
ENDS = frozenset({"done", "failed", "cancelled", "expired"})

OnLook = Callable[[TransferDetail], None]
"""Sees the transfer again and again while the cluster's leg runs."""


class Service(NodeQuestions):
    """Speaks to one service as the holder of ``token``. Every method raises ServiceError for a problem it answers."""

    def __init__(
        self,
        url: str,
        token: str | TokenSource | None,
        *,
        timeout_seconds: float = 60.0,
        patience_seconds: float = PATIENCE_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._asking = Asking(
            url, token, timeout_seconds=timeout_seconds, patience_seconds=patience_seconds, transport=transport, clock=clock
        )
        self.url = self._asking.url
        self.clock = self._asking.clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._asking.aclose()

    async def auth_methods(self) -> AuthMethods:
        """How to come by a token; open to strangers."""
        return AuthMethods.model_validate(await self._asking.ask("GET", "/auth/methods"))

    async def log_out(self) -> None:
        """End the session whose token this is."""
        await self._asking.once("DELETE", "/accounts/sessions/current")

    async def begin_upload(
        self,
        system: str,
        remote_path: str,
        size_bytes: int,
        *,
        account: str | None = None,
        archive: bool = False,
        sha256: str | None = None,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> TransferAnswer:
        """Begin an upload: the URLs to put parts to. ``archive``: of a tar stream that becomes the directory ``remote_path``.

        ``sha256`` (hex) is of all that will be sent, to be compared on the cluster. ``webhook_url`` is told each change of
        state. ``idempotency_key``: the same key with the same arguments, in another process as well, is the same transfer;
        by default each call has its own.
        """
        directives = {"transferMethod": "s3", "fileSize": size_bytes}
        more = {"sha256": sha256, "webhookUrl": webhook_url, "archive": "tar" if archive else None}
        return await self._begin(system, "upload", remote_path, directives, account, more, idempotency_key)

    async def begin_download(
        self,
        system: str,
        remote_path: str,
        *,
        account: str | None = None,
        archive: bool = False,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> TransferAnswer:
        """Begin a download. ``archive``: of the directory ``remote_path``, as a tar stream. The rest as for an upload."""
        more = {"webhookUrl": webhook_url, "archive": "tar" if archive else None}
        return await self._begin(system, "download", remote_path, {"transferMethod": "s3"}, account, more, idempotency_key)

    async def _begin(
        self,
        system: str,
        direction: str,
        path: str,
        directives: dict[str, Any],
        account: str | None,
        more: dict[str, str | None],
        idempotency_key: str | None,
    ) -> TransferAnswer:
        given = {name: value for name, value in more.items() if value is not None}
        body = {"path": path, "transferDirectives": directives, "account": account, **given}
        route = f"/filesystem/{quote(system, safe='')}/transfer/{direction}"
        return TransferAnswer.model_validate(await self._post_once(route, body, idempotency_key))

    async def begin_transfer(
        self,
        source: Place | str,
        destination: Place | str,
        *,
        account: str | None = None,
        archive: bool = False,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
        road: str | None = None,
        rate_limit: int | None = None,
    ) -> BegunTransfer:
        """Begin a transfer from one system to another, both written ``SYSTEM:/path`` or ``node:NAME:/path``. The rest as
        for an upload. ``road`` between two nodes: ``direct`` insists on going straight, ``staged`` on the staging area;
        ``rate_limit`` is in bytes a second, straight only.

        Raises also ValueError: one of the two is no place on a system.
        """
        ends = {name: the_place(end) for name, end in (("source", source), ("destination", destination))}
        body: dict[str, Any] = {
            name: {"system": await self.find_system(end.system), "path": end.path} for name, end in ends.items()
        }
        more: dict[str, Any] = {"account": account, "webhookUrl": webhook_url, "archive": "tar" if archive else None}
        more |= {"road": road, "rateLimitBytesPerSecond": rate_limit}
        body |= {name: value for name, value in more.items() if value is not None}
        return BegunTransfer.model_validate(await self._post_once("/transfers", body, idempotency_key))

    async def _post_once(self, route: str, body: dict[str, Any], idempotency_key: str | None) -> Any:
        """Begins a transfer; with its key it may be asked again: a lost answer never begins a second one."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        deadline = self.clock.monotonic() + PREPARING_PATIENCE_SECONDS
        while True:
            try:
                return await self._asking.ask("POST", route, json=body, headers=headers)
            except ServiceError as error:
                # A process that died while it prepared the transfer is waited for until the service has given it up.
                if error.code != "request_under_way" or self.clock.monotonic() > deadline:
                    raise

    async def list_directory(
        self,
        system: str,
        path: str,
        *,
        show_hidden: bool = False,
        recursive: bool = False,
        numeric_ids: bool = False,
        dereference: bool = False,
    ) -> ListingAnswer:
        """All that a directory of a system holds (``output``), or the one file; never a part of it."""
        wanted = {"showHidden": show_hidden, "recursive": recursive, "numericUid": numeric_ids, "dereference": dereference}
        asked = {"path": path, **{name: "true" for name, is_wanted in wanted.items() if is_wanted}}
        route = f"/filesystem/{quote(system, safe='')}/ops/ls"
        return ListingAnswer.model_validate(await self._asking.ask("GET", route, params=asked))

    async def transfers(self, **filters: str | int | list[str]) -> TransferPage:
        """A page of transfers, newest first; filters as in the API (``system``, ``direction``, ``state``, ``after`` …)."""
        return TransferPage.model_validate(await self._asking.ask("GET", "/transfers", params=filters))

    async def transfer(self, transfer_id: str, *, patience_seconds: float | None = None) -> TransferDetail:
        """One transfer with its story."""
        return TransferDetail.model_validate(await self._ask("GET", transfer_id, patience_seconds=patience_seconds))

    async def parts(self, transfer_id: str) -> PartsView:
        """What the store has of an upload, and fresh URLs for the rest."""
        return PartsView.model_validate(await self._ask("GET", transfer_id, "/parts"))

    async def finish(self, transfer_id: str, *, etag: str | None = None, part_crc32: Sequence[str] | None = None) -> TransferView:
        """Say that the client's side is through; ``etag`` is what the store answered to an upload's completion.

        ``part_crc32`` has the CRC-32 of each part, eight hexadecimal digits, in order: the cluster compares them.
        """
        body: dict[str, object] = {"etag": etag}
        if part_crc32 is not None:
            body["partDigests"] = {"algorithm": "crc32", "values": list(part_crc32)}
        answer = await self._ask("POST", transfer_id, "/finish", json=body, patience_seconds=LONG_PATIENCE_SECONDS)
        return TransferView.model_validate(answer)

    async def cancel(self, transfer_id: str) -> TransferView:
        """Cancel; nothing of it stays."""
        return TransferView.model_validate(await self._ask("DELETE", transfer_id))

    async def retry(self, transfer_id: str) -> TransferView:
        """Have a failed transfer go on from what is staged, while its ``retry_until`` lasts."""
        answer = await self._ask("POST", transfer_id, "/retry", patience_seconds=LONG_PATIENCE_SECONDS)
        return TransferView.model_validate(answer)

    async def stop(self, transfer_id: str) -> TransferView:
        """Stop what runs and keep what has arrived; ``retry`` goes on from there."""
        return TransferView.model_validate(await self._ask("POST", transfer_id, "/stop"))

    async def limit(self, transfer_id: str, bytes_per_second: int | None) -> TransferView:
        """From now on at most so fast, straight between two nodes; None: as fast as it goes. Also while it goes.

        Raises ServiceError: ``wrong_state``: it does not go straight, or all of it was sent.
        """
        change = {"rateLimitBytesPerSecond": bytes_per_second}
        return TransferView.model_validate(await self._ask("PATCH", transfer_id, json=change))

    async def network_check(self, transfer_id: str) -> NetworkCheckView:
        """What was found of the way between two nodes, and how fast it went. Raises ServiceError: there is none (yet)."""
        return NetworkCheckView.model_validate(await self._ask("GET", transfer_id, "/network-check"))

    async def download_url(self, transfer_id: str, *, ttl_seconds: int | None = None) -> DownloadUrl:
        """A fresh URL of a staged download, for ``ttl_seconds`` (60 to 604800), or as long as the service gives by itself.

        Whoever has it may fetch the file until then, or until the transfer ends.
        """
        wanted = {"ttlSeconds": ttl_seconds} if ttl_seconds is not None else {}
        return DownloadUrl.model_validate(await self._ask("GET", transfer_id, "/download-url", params=wanted))

    async def wait(self, transfer_id: str, on_look: OnLook | None = None) -> TransferDetail:
        """Until an upload is done or a download is staged. Raises TransferFailed when it ends otherwise."""
        return await self.wait_for(transfer_id, {"done", "staged"}, {"done"}, on_look)

    async def wait_for(
        self, transfer_id: str, download_states: set[str], upload_states: set[str], on_look: OnLook | None = None
    ) -> TransferDetail:
        """Until it is in one of the states for its direction. Raises TransferFailed when it ends otherwise."""
        pause, waited = FIRST_LOOK_SECONDS, 0.0
        while True:
            transfer = await self.transfer(transfer_id, patience_seconds=LONG_PATIENCE_SECONDS)
            if on_look is not None:
                on_look(transfer)
            if transfer.state in (download_states if transfer.direction == "download" else upload_states):
                return transfer
            require_hope(transfer)
            await self.clock.sleep(pause)
            # The end is seen late by a twentieth of the time at most; a transfer of days is left in peace.
            waited += pause
            pause = min(max(FIRST_LOOK_SECONDS, waited / 20), LONGEST_LOOK_SECONDS)

    async def _ask(self, method: str, transfer_id: str, route: str = "", **options: Any) -> Any:
        path = f"/transfers/{quote(transfer_id, safe='')}{route}"
        return await self._asking.ask(method, path, transfer_id=transfer_id, **options)


def require_hope(transfer: TransferDetail) -> None:
    """Raises TransferFailed for one that ended without success."""
    if transfer.state in ENDS and transfer.state != "done":
        raise TransferFailed(transfer.reason or f"The transfer is {transfer.state}.", transfer.code or transfer.state, transfer)
