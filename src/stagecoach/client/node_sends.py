"""What a node of one's own sends to any S3 store: where to, and the questions about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from stagecoach.client.asking import Asking
from stagecoach.wire.nodes import CommandPage, CommandView

SEND_TO_STORE = "send_to_store"
LOOK_SECONDS = 2.0
MOST_LISTED = 500

OnCommand = Callable[[CommandView], None]


@dataclass(frozen=True, slots=True)
class Store:
    """Any S3 store. ``url`` is ``https://HOST[:PORT]``, or ``http://`` for one without TLS.

    It is believed by ``ca_pem``, by the SHA-256 of its certificate, or else as any known authority says.
    """

    url: str
    bucket: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    folder: str = ""
    ca_pem: str | None = None
    certificate_sha256: str | None = None

    def endpoint(self) -> dict[str, Any]:
        """As the service is told. Raises ValueError for a URL that names no store."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise ValueError(f"{self.url!r} is no store's address: write https://HOST or https://HOST:PORT")
        tls = parts.scheme == "https"
        more = {"caPem": self.ca_pem, "certificateSha256": self.certificate_sha256}
        return {"host": parts.hostname, "port": parts.port or (443 if tls else 80), "tls": tls, **more}


class NodeSendQuestions:
    """Every method raises ServiceError for a problem that the service answers."""

    _asking: Asking

    async def send_to_store(
        self,
        node_id: str,
        source_path: str,
        store: Store,
        *,
        is_directory: bool = False,
        file_name: str | None = None,
        rate_limit: int | None = None,
    ) -> CommandView:
        """Have a node of one's own send a file, or a directory with what is in it, to a store; as it stands in the queue.

        ``file_name`` is a file's there, where it shall be another; ``rate_limit`` is in bytes a second. Asked once: it would
        be sent twice. Raises also ValueError: the store's URL is none.
        """
        body = {
            "sourcePath": source_path,
            "isDirectory": is_directory,
            "endpoint": store.endpoint(),
            "bucket": store.bucket,
            "folder": store.folder,
            "fileName": None if is_directory else file_name or source_path.rstrip("/").rpartition("/")[2],
            "rateLimitBytesPerSecond": rate_limit,
            "accessKeyId": store.access_key_id,
            "secretAccessKey": store.secret_access_key,
        }
        return CommandView.model_validate(await self._asking.once("POST", f"/nodes/{quote(node_id, safe='')}/sends", json=body))

    async def node_sends(self, node_id: str, *, limit: int = 50) -> CommandPage:
        """The ``limit`` newest of what a node sends and has sent to stores, the last of the queue first."""
        found: list[CommandView] = []
        after: str | None = None
        while True:
            asked = {"limit": MOST_LISTED} | ({"after": after} if after else {})
            answer = await self._asking.ask("GET", f"/nodes/{quote(node_id, safe='')}/commands", params=asked)
            page = CommandPage.model_validate(answer)
            found += [command for command in page.commands if command.kind == SEND_TO_STORE]
            if len(found) >= limit or page.next is None or page.next == after:
                return CommandPage(commands=found[:limit])
            after = page.next

    async def wait_for_command(self, node_id: str, command_id: str, on_look: OnCommand | None = None) -> CommandView:
        """Until it has ended, well or not; ``on_look`` sees it again and again, with its ``progress``."""
        route = f"/nodes/{quote(node_id, safe='')}/commands/{quote(command_id, safe='')}"
        while True:
            command = CommandView.model_validate(await self._asking.ask("GET", route))
            if on_look is not None:
                on_look(command)
            if command.ended_at is not None or command.state in {"done", "failed", "cancelled"}:
                return command
            await self._asking.clock.sleep(LOOK_SECONDS)
