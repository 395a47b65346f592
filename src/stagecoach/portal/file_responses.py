"""Answers with the bytes of a small file, which the API sends; they pass through and are never held here."""

from __future__ import annotations

import json
import posixpath
from typing import Any
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from stagecoach.portal.api_calls import ApiRefusal, query_text
from stagecoach.portal.gateway import forwarded
from stagecoach.portal.visits import Visit

# No SVG: it may hold scripts.
IMAGE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}


class FileResponse(Response):
    """What ``ops/download`` answers, under the name of the file."""

    def __init__(self, visit: Visit, system: str, path: str, media_type: str, *, as_attachment: bool) -> None:
        super().__init__()
        self._visit = visit
        self._api_path = f"/filesystem/{system}/ops/download"
        self._query = query_text({"path": path}).encode()
        self._described = {"Content-Type": media_type, "Content-Disposition": _disposition(path, as_attachment=as_attachment)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ApiRefusal before anything is sent."""
        refusal: dict[str, Any] = {"status": 0, "body": b""}

        async def pass_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] != 200:
                refusal["status"] = message["status"]
            elif refusal["status"]:
                refusal["body"] += message.get("body", b"")
            else:
                if message["type"] == "http.response.start":
                    self._rename(message)
                await send(message)

        credential = self._visit.credential or ""
        inner = {**forwarded(scope, self._api_path, credential, self._query), "method": "GET"}
        await self._visit.portal.forwarded_api(inner, receive, pass_on)
        if refusal["status"]:
            problem = json.loads(refusal["body"])
            raise ApiRefusal(refusal["status"], problem["code"], problem["message"])

    def _rename(self, message: Message) -> None:
        headers = MutableHeaders(raw=message["headers"])
        headers.update(self._described)
        # Whatever the file holds, nothing of it runs with our name.
        headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        self._visit.slot.keeps_policy = True


def _disposition(path: str, *, as_attachment: bool) -> str:
    """RFC 6266: the name twice, since old programs read the first one only."""
    name = posixpath.basename(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    plain = "".join(letter if letter.isascii() and letter.isprintable() and letter not in '"\\%' else "_" for letter in name)
    return f"{'attachment' if as_attachment else 'inline'}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
