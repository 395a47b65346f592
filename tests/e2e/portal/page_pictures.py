"""One picture of each page of the portal: on a desk's screen and a phone's, in the light and in the dark, side by side."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, expect
from tests.e2e.portal.desk import LONG_MILLISECONDS, Desk

SCREENS: tuple[dict[str, Any], ...] = ({"width": 1240, "height": 880}, {"width": 390, "height": 880})
COLOURS = ("light", "dark")
SCALE = 0.62
MOST_BYTES = 350_000
UPLOAD_BYTES_PER_SECOND = 400_000
README = """# Run 147

Detector distance 1.2 m, 12.4 keV, 2000 frames.

| file | what it is |
|---|---|
| run-0147.h5 | the frames |
| spectrum.png | their sum |
"""


class Sheets:
    """Into ``target``, one file a page."""

    def __init__(self, browser: Browser, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        self._browser = browser
        self._target = target

    def keep(self, desk: Desk, name: str, path: str | None = None) -> None:
        """Of the page that is open, just as it is; of that at ``path`` first, where one is given."""
        if path is not None:
            desk.page.goto(f"{desk.said['url']}/portal/{path}")
        shots = []
        for screen in SCREENS:
            for colours in COLOURS:
                desk.page.set_viewport_size(screen)  # type: ignore[arg-type]
                desk.page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
                shots.append((screen, desk.page.screenshot(animations="disabled")))
        self._side_by_side(shots, self._target / f"{name}.jpg")

    def _side_by_side(self, shots: list[tuple[dict[str, Any], bytes]], file: Path) -> None:
        gap = 16
        widths = [round(screen["width"] * SCALE) for screen, _ in shots]
        height = round(SCREENS[0]["height"] * SCALE)
        images = "".join(
            f'<img width="{width}" height="{height}" src="data:image/png;base64,{base64.b64encode(shot).decode()}">'
            for width, (_, shot) in zip(widths, shots, strict=True)
        )
        style = f"body {{ margin: 0; padding: {gap}px; display: flex; gap: {gap}px; background: #888 }}"
        size: dict[str, Any] = {"width": sum(widths) + gap * (len(widths) + 1), "height": height + 2 * gap}
        with self._browser.new_context(viewport=size) as context:  # type: ignore[arg-type]
            page = context.new_page()
            page.set_content(f"<style>{style}</style>{images}")
            page.wait_for_function("[...document.images].every(image => image.complete)")
            page.screenshot(path=file, type="jpeg", quality=80)
        size_bytes = file.stat().st_size
        assert size_bytes < MOST_BYTES, f"{file.name} has {size_bytes} bytes"
        print(f"{file.name}: {size_bytes} bytes")


def draw_strangers(desk: Desk, sheets: Sheets) -> None:
    """What is seen by those who have not signed in."""
    with desk.neighbour() as stranger:
        sheets.keep(stranger, "sign-in", "")


def draw_beginning(desk: Desk, sheets: Sheets) -> None:
    """Pages that are empty yet."""
    sheets.keep(desk, "welcome", "welcome")
    sheets.keep(desk, "transfers-empty", "transfers")
    sheets.keep(desk, "nodes-empty", "nodes")


def draw_files(desk: Desk, sheets: Sheets, sources: Path) -> None:
    """A folder, its files, an upload from its first byte, and the transfer that comes of it."""
    fill(desk.folder)
    system = f"files/{desk.said['system']}"
    sheets.keep(desk, "systems", "files?all=yes")
    desk.show_folder()
    sheets.keep(desk, "folder")
    for name, file in (("preview-text", "README.md"), ("preview-image", "spectrum.png")):
        desk.page.goto(f"{desk.said['url']}/portal/{system}/entry?path={quote(str(desk.folder / file))}")
        desk.page.wait_for_load_state("networkidle")
        sheets.keep(desk, name)
    sheets.keep(desk, "delete", f"{system}/delete?kind=folder&path={quote(str(desk.folder / 'figures'))}")
    sources.mkdir()
    uploads = [sources / name for name in ("run-0148.h5", "run-0149.h5")]
    for upload in uploads:
        upload.write_bytes(b"measured" * 1_000_000)
    desk.show_folder()
    desk.drop(*uploads)
    expect(desk.page.locator(".uppy-Dashboard-Item")).to_have_count(len(uploads))
    desk.page.locator("#upload").scroll_into_view_if_needed()
    sheets.keep(desk, "upload-chosen")
    desk.slow_down(UPLOAD_BYTES_PER_SECOND)
    desk.send()
    expect(desk.page.locator(".uppy-StatusBar-statusSecondary")).to_be_visible()
    desk.page.locator("#upload").scroll_into_view_if_needed()
    sheets.keep(desk, "upload-under-way")
    under_way = desk.transfers()[0]["id"]
    sheets.keep(desk, "transfer-under-way", f"transfers/{under_way}")
    # Whoever leaves gives the upload up for now: this one to show a transfer that was cancelled.
    desk.page.get_by_role("button", name="Cancel").first.click()
    desk.show_folder()
    desk.drop(*uploads)
    desk.send()
    desk.expect_arrived(len(uploads))
    desk.page.locator("#upload").scroll_into_view_if_needed()
    sheets.keep(desk, "upload-arrived")
    desk.page.locator(".upload-landing a").first.click()
    expect(desk.page.get_by_text("verified").first).to_be_visible(timeout=LONG_MILLISECONDS)
    sheets.keep(desk, "transfer-done")
    sheets.keep(desk, "transfers", "transfers")


def draw_nodes(desk: Desk, sheets: Sheets, node_id: str, check: str, transfer: str) -> None:
    """Those of one node, and of what goes between two."""
    node = f"nodes/{node_id}"
    for name, path in (
        ("nodes", "nodes"),
        ("node", node),
        ("node-upload", f"{node}/upload"),
        ("node-grants", f"{node}/grants"),
        ("node-store", f"{node}/store"),
        ("node-settings", f"{node}/settings"),
        ("network-check", check),
        ("send", "send"),
        ("transfer-between-nodes", transfer),
        ("invitation", "invitation"),
    ):
        sheets.keep(desk, name, path)


def draw_account(desk: Desk, sheets: Sheets) -> None:
    """One's own things, and a page that is not there."""
    sheets.keep(desk, "account", "account")
    sheets.keep(desk, "tokens", "tokens")
    sheets.keep(desk, "not-found", "transfers/01jv0000000000000000000000")


def draw_administration(administrator: Desk, sheets: Sheets) -> None:
    """All pages of administrators."""
    for page in ("", "/people", "/limits", "/transfers", "/audit", "/orphans"):
        sheets.keep(administrator, f"admin-{page[1:] or 'systems'}", f"admin{page}")


def fill(folder: Path) -> None:
    """With what a scientist has."""
    for name in ("calibration", "figures", "2026-11"):
        (folder / name).mkdir()
    (folder / "README.md").write_text(README)
    (folder / "spectrum.png").write_bytes(spectrum(480, 200))
    for number in range(141, 148):
        with (folder / f"run-0{number}.h5").open("wb") as file:
            file.truncate(number * 7_654_321)


def spectrum(width: int, height: int) -> bytes:
    """A PNG of peaks over a background (RFC 2083: one byte of grey a pixel)."""
    peaks = ((90, 0.9, 9.0), (200, 0.55, 14.0), (310, 0.75, 6.0), (400, 0.3, 20.0))
    tops = [
        0.06 + sum(strength * math.exp(-(((column - middle) / spread) ** 2)) for middle, strength, spread in peaks)
        for column in range(width)
    ]
    rows = b"".join(b"\0" + bytes(40 if height - row < top * height * 0.95 else 235 for top in tops) for row in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
