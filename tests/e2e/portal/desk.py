"""A person at a desk: a browser that knows nobody yet, whose pages may be closed and opened again, and what it put where."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright
from tests.e2e.testbed import REPOSITORY

VENDOR = REPOSITORY / "src" / "stagecoach" / "portal" / "static" / "vendor" / "vendor.json"
AXE = REPOSITORY / "deploy" / "portal" / "node_modules" / "axe-core" / "axe.min.js"
LONG_MILLISECONDS = 180_000
# Chromium refuses to run as root with its sandbox.
LAUNCH: dict[str, Any] = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"] if os.geteuid() == 0 else []}
# Of what a page shows at once on a machine that has nothing else to do.
expect.set_options(timeout=30_000)
_PART = re.compile(r"[?&]partNumber=(\d+)")
# What a browser says of a request that a test has failed on purpose.
_ASKED_FOR = re.compile(r"Failed to load resource|net::ERR_|\[Uppy\]|Autofocus")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Started; each person has a context of it, which knows nothing of the others'."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**LAUNCH)
        try:
            yield browser
        finally:
            browser.close()


class Desk:
    """``said`` has the service's ``url``, a ``system``, and a ``token`` to look into its API with; a ``portal`` link signs in.

    ``folder`` is where the pages upload to.
    """

    def __init__(self, said: dict[str, str], folder: Path, open_browser: Callable[[], BrowserContext]) -> None:
        self.said = said
        self.folder = folder
        self.troubles: list[str] = []
        self.begun: list[int] = []
        self.taken: list[int] = []
        self._open_browser = open_browser

    def __enter__(self) -> Self:
        self.context = self._open_browser()
        try:
            self.context.on("request", self._request)
            self.context.on("requestfinished", self._finished)
            self.page = self.open_page()
            if "portal" in self.said:
                self.sign_in()
        except BaseException:
            self.context.close()
            raise
        return self

    def sign_in(self) -> None:
        """As the machine's user."""
        self.page.goto(self.said["portal"])
        self.page.get_by_role("button", name="Continue as").click()
        expect(self.page.get_by_role("navigation", name="Main")).to_be_visible()

    @contextmanager
    def neighbour(self) -> Iterator[Desk]:
        """Another person's browser, where nobody has signed in yet."""
        said = {name: value for name, value in self.said.items() if name != "portal"}
        with Desk(said, self.folder, self._open_browser) as other:
            yield other
        assert other.troubles == []

    def sign_in_with(self, token: str) -> None:
        """On the page that is open, or leads to it."""
        self.page.get_by_text("Sign in with a token").click()
        self.page.get_by_label("Token", exact=True).fill(token)
        self.page.locator("form[action='/portal/sign-in/token'] button").click()
        expect(self.page.get_by_role("navigation", name="Main")).to_be_visible()

    def sign_out(self) -> None:
        self.page.locator(".menu summary").last.click()
        self.page.get_by_role("button", name="Sign out", exact=True).click()
        expect(self.page.get_by_role("heading", name="Sign in")).to_be_visible()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.context.close()

    def open_page(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self._complain(said.text))
        return page

    def close_page(self) -> None:
        """As when the window is closed; what was in memory is gone."""
        self.page.close()
        self.page = self.open_page()

    def show_folder(self) -> None:
        self.page.goto(f"{self.said['url']}/portal/files/{self.said['system']}?path={quote(str(self.folder))}")
        expect(self.page.locator("#upload .uppy-Dashboard-inner")).to_be_visible()

    def drop(self, *paths: Path) -> None:
        """As the mouse drops files of this computer, folders too."""
        area = self.page.locator("#upload .uppy-Dashboard-inner")
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        assert box is not None
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        session = self.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for step in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": step, "data": data, **at})
        session.detach()

    def send(self) -> None:
        self.page.locator(".uppy-StatusBar-actionBtn--upload").click()

    def slow_down(self, bytes_per_second: int) -> None:
        session = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second}
        session.send("Network.emulateNetworkConditions", limits)

    def expect_arrived(self, count: int = 1) -> None:
        """So many uploads of this page are on the system."""
        expect(self.page.locator(".upload-landing .state.done")).to_have_count(count, timeout=LONG_MILLISECONDS)

    def transfers(self) -> list[dict[str, Any]]:
        """Those into the folder, newest first, as the API shows them."""
        headers = {"Authorization": f"Bearer {self.said['token']}"}
        answer = httpx.get(f"{self.said['url']}/transfers?limit=100", headers=headers, timeout=30).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["transfers"]
        return [transfer for transfer in found if transfer["path"].startswith(f"{self.folder}/")]

    def _request(self, request: Request) -> None:
        if request.method == "PUT" and (part := _PART.search(request.url)):
            self.begun.append(int(part[1]))

    def _finished(self, request: Request) -> None:
        if request.method == "PUT" and (part := _PART.search(request.url)):
            self.taken.append(int(part[1]))

    def _complain(self, text: str) -> None:
        if not _ASKED_FOR.search(text):
            self.troubles.append(text)
