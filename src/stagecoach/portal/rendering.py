"""Templates into pages: everything is escaped, a name that does not exist is an error, and static files carry their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from stagecoach.portal import words

VENDOR_FILES = ("vendor/htmx.js", "vendor/uppy.js")
# The one script that runs WebAssembly, for digests; it is a worker, so this does not hold for any page.
DIGEST_WORKER = "upload/digest-worker.js"
DIGEST_WORKER_POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; frame-ancestors 'none'"
IMMUTABLE = "public, max-age=31536000, immutable"


def portal_directory() -> Path:
    """Where templates and static files lie."""
    return Path(str(resources.files("stagecoach.portal")))


class Templates:
    """The environment that all pages share."""

    def __init__(self, title: str, support: str | None, now: Callable[[], datetime]) -> None:
        self._directory = portal_directory()
        self._digests: dict[str, str] = {}
        self._environment = Environment(
            loader=FileSystemLoader(self._directory / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "size": words.size_words,
            "rate": words.rate_words,
            "moment": words.moment_words,
            "duration": words.duration_words,
            "time": words.moment_of,
            "ago": lambda moment: words.ago_words(moment, now()),
            "percent": words.percent,
            "query": quoted,
            "shown": shown,
        }
        self._environment.globals |= {
            "title": title,
            "support": support,
            "asset": self.asset,
            "has_scripts": self.has_vendor_files,
            "script_of": self.script_of,
            "now": now,
        }

    def render(self, template: str, **context: Any) -> str:
        """The text."""
        return self._environment.get_template(template).render(**context)

    @cached_property
    def has_vendor_files(self) -> bool:
        """Whether the libraries that the build brings are there."""
        return all((self._directory / "static" / name).is_file() for name in VENDOR_FILES)

    def asset(self, name: str) -> str:
        """Address of a static file, which changes when the file does."""
        if name not in self._digests:
            content = (self._directory / "static" / name).read_bytes()
            self._digests[name] = hashlib.sha256(content).hexdigest()[:12]
        return f"/portal/static/{name}?v={self._digests[name]}"

    def script_of(self, name: str) -> str | None:
        """Address of a page's script, where this installation has it."""
        return self.asset(name) if (self._directory / "static" / name).is_file() else None


class StaticPages(StaticFiles):
    """What is asked for with its digest never changes; all else is asked for again each time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One file."""
        is_named_by_digest = scope["query_string"].startswith(b"v=")

        async def with_life(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] in {200, 304}:
                life = IMMUTABLE if is_named_by_digest else "no-cache"
                message["headers"] = [*message["headers"], (b"cache-control", life.encode())]
                if scope["path"].endswith(f"/{DIGEST_WORKER}"):
                    scope["state"]["slot"].keeps_policy = True
                    message["headers"].append((b"content-security-policy", DIGEST_WORKER_POLICY.encode()))
            await send(message)

        await super().__call__(scope, receive, with_life)


def quoted(text: str) -> str:
    """For an address: the exact bytes of a file's name."""
    return quote(text.encode("utf-8", "surrogateescape"), safe="/")


def shown(text: str) -> str:
    """For reading: bytes that are not UTF-8 as U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
