"""Makes the pictures of the portal's pages anew: ``python -m tests.e2e.portal.pictures docs/pictures``.

A service of its own, a node with a real agent, and what people would have there. Needs Chromium and ``make portal``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import expect
from tests.e2e.firecrest_place import stagecoach_up
from tests.e2e.portal.desk import LONG_MILLISECONDS, Desk, chromium
from tests.e2e.portal.machine import Machine
from tests.e2e.portal.page_pictures import (
    Sheets,
    draw_account,
    draw_administration,
    draw_beginning,
    draw_files,
    draw_nodes,
    draw_strangers,
)

from stagecoach.api.signing_keys import ensure_signing_key, sign_token
from stagecoach.settings import IssuerSettings

MOST_BYTES = 150_000
DESK, TALL, PHONE = {"width": 1120, "height": 760}, {"width": 1120, "height": 1060}, {"width": 390, "height": 760}
ARRIVED = ("calibration.h5", "run-0141.h5")
WAITING = ("run-0142.h5", "run-0143.h5", "notes.tar")
# File, page below the node's or by its name, colours, screen, and the heading that is at the top.
PICTURES: tuple[tuple[str, str | None, str, dict[str, int], str | None], ...] = (
    ("nodes-list-dark.png", None, "dark", DESK, None),
    ("node-light.png", "", "light", DESK, None),
    ("node-phone-dark.png", "", "dark", PHONE, "Queue"),
    ("node-grants-light.png", "/grants", "light", DESK, None),
    ("network-check-light.png", "/check", "light", DESK, None),
    ("network-check-phone-dark.png", "/check", "dark", PHONE, None),
    ("transfer-direct-light.png", "transfer", "light", TALL, None),
    ("transfer-direct-phone-dark.png", "transfer", "dark", PHONE, "How fast it went"),
    ("send-light.png", "send", "light", TALL, None),
    ("node-store-dark.png", "/store", "dark", TALL, None),
)
# The page of quotas: file, colours, screen.
ADMINISTRATORS = (("admin-usage-light.png", "light", DESK), ("admin-usage-phone-dark.png", "dark", PHONE))


class Story:
    """What is on the pages, made by the API as a person with a token would."""

    def __init__(self, said: dict[str, str]) -> None:
        self._http = httpx.Client(base_url=said["url"], headers={"Authorization": f"Bearer {said['token']}"}, timeout=60)

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(path, json=body).raise_for_status()
        made: dict[str, Any] = answer.json()
        return made

    def send(self, node_id: str, name: str, content: bytes) -> None:
        """Whole: it arrives."""
        begun = self.ask("/transfers", {**self._to(node_id, name), "sizeBytes": len(content)})
        httpx.put(begun["upload"]["partUrls"][0], content=content).raise_for_status()
        self.ask(f"/transfers/{begun['transfer']['id']}/finish", {})

    def begin(self, node_id: str, name: str, size_bytes: int) -> None:
        """It waits in the queue for its parts."""
        self.ask("/transfers", {**self._to(node_id, name), "sizeBytes": size_bytes})

    def begin_direct(self, source_id: str, target_id: str, name: str, bytes_per_second: int) -> str:
        """From one node straight to another; the transfer's id."""
        ends = {"source": {"system": f"node:{source_id}", "path": f"/{name}"}, **self._to(target_id, name)}
        begun = self.ask("/transfers", {**ends, "road": "direct", "rateLimitBytesPerSecond": bytes_per_second})
        return str(begun["transfer"]["id"])

    def change_settings(self, token: str, **values: int) -> None:
        """As the administrator with this token."""
        headers = {"Authorization": f"Bearer {token}"}
        body = {"set": {f"s3.{name}": value for name, value in values.items()}}
        self._http.patch("/admin/settings", json=body, headers=headers).raise_for_status()

    def grant(self, node_id: str, user: str, folder: str, max_bytes: int) -> None:
        body = {"user": user, "folder": folder, "maxBytes": max_bytes, "label": "Campaign of the winter"}
        self.ask(f"/nodes/{node_id}/grants", {**body, "expiresAt": "2099-03-31T23:59:59Z"})

    def invite(self, node_id: str) -> None:
        self.ask(f"/nodes/{node_id}/invitations", {"folder": "/guests", "label": "The detector group"})

    def _to(self, node_id: str, name: str) -> dict[str, Any]:
        return {"destination": {"system": f"node:{node_id}", "path": f"/{name}"}}


def main(target: Path) -> None:
    """All pictures, into ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    # Whose service it is stands on every page.
    os.environ["LOGNAME"] = "ada"
    # Its name stands on pages too.
    place = Path(tempfile.gettempdir(), "beamline")
    place.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, place)
        browser = stack.enter_context(chromium())
        machines = Machine(place / "machine", receives=True), Machine(place / "lab")
        with stagecoach_up(place) as (said, root), Desk(said, root, browser.new_context) as desk:
            sheets = Sheets(browser, target / "pages")
            try:
                draw_strangers(desk, sheets)
                draw_beginning(desk, sheets)
                draw_files(desk, sheets, place / "sources")
                draw_account(desk, sheets)
                node_id = draw(desk, *machines, target, sheets)
                draw_administrators(desk, node_id, place / "state", target, sheets)
            finally:
                for machine in machines:
                    machine.stop()


def draw(desk: Desk, machine: Machine, lab: Machine, target: Path, sheets: Sheets) -> str:
    """The pages of a person with nodes; the id of the first."""
    story = Story(desk.said)
    node_id = machine.enrol(desk.said, "Beamline archive")
    page, node = desk.page, f"{desk.said['url']}/portal/nodes/{node_id}"
    page.goto(node)
    for name in ARRIVED:
        story.send(node_id, name, b"measured" * 1000)
    expect(page.locator("#ended .state.done")).to_have_count(len(ARRIVED), timeout=LONG_MILLISECONDS)
    page.get_by_role("button", name="Check the network").click()
    check = page.get_by_role("link", name="What was measured")
    expect(check).to_be_visible(timeout=LONG_MILLISECONDS)
    pages = {"/check": f"{desk.said['url']}{check.get_attribute('href')}", None: f"{desk.said['url']}/portal/nodes"}
    lab_id = lab.enrol(desk.said, "Detector lab")
    (lab.send / "run-0147.h5").write_bytes(os.urandom(60_000_000))
    transfer_id = story.begin_direct(lab_id, node_id, "run-0147.h5", 4_000_000)
    pages["transfer"] = f"{desk.said['url']}/portal/transfers/{transfer_id}"
    pages["send"] = f"{desk.said['url']}/portal/send?from=node:{lab_id}&to=node:{node_id}&source=/run-0148.h5&target=/run-0148.h5"
    page.goto(pages["transfer"])
    expect(page.locator("#rates")).to_be_visible(timeout=LONG_MILLISECONDS)
    for name in WAITING:
        story.begin(node_id, name, 10**8)
    story.grant(node_id, "bob", "/from-bob", 2 * 10**12)
    story.invite(node_id)
    # A receiver that has just closed a key is away for a moment.
    page.goto(node)
    expect(page.locator("#now .notice.warn")).to_have_count(0)
    for file, path, colours, screen, heading in PICTURES:
        page.set_viewport_size(screen)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
        page.goto(pages.get(path) or f"{node}{path}")
        if heading is not None:
            page.locator("h2, figcaption").filter(has_text=heading).first.evaluate("heading => heading.scrollIntoView()")
        keep(desk, target / file)
    start = f"{desk.said['url']}/portal/"
    draw_nodes(desk, sheets, node_id, str(pages["/check"]).removeprefix(start), pages["transfer"].removeprefix(start))
    return node_id


def draw_administrators(desk: Desk, node_id: str, state: Path, target: Path, sheets: Sheets) -> None:
    """Their pages; that of quotas with what is under way."""
    key = ensure_signing_key(state / "signing-key.json", state / "jwks.json")
    issuer = IssuerSettings(jwks=str(state / "jwks.json"))
    token = sign_token(key, "grace", 3600, issuer, is_admin=True)
    Story(desk.said).change_settings(token, max_staged_bytes_per_user=10**9)
    for user, size_bytes in (("alan", 640_000_000), ("bea", 12_000_000)):
        Story(desk.said).grant(node_id, user, f"/{user}", 10**12)
        Story({**desk.said, "token": sign_token(key, user, 3600, issuer)}).begin(node_id, f"{user}/scan.h5", size_bytes)
    Story(desk.said).ask(
        "/transfers", {"destination": {"system": desk.said["system"], "path": f"{desk.folder}/x"}, "sizeBytes": 10}
    )
    with desk.neighbour() as administrator:
        administrator.page.goto(f"{desk.said['url']}/portal/admin/limits")
        administrator.sign_in_with(token)
        for file, colours, screen in ADMINISTRATORS:
            administrator.page.set_viewport_size(screen)  # type: ignore[arg-type]
            administrator.page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
            administrator.page.goto(f"{desk.said['url']}/portal/admin/limits")
            keep(administrator, target / file)
        draw_administration(administrator, sheets)


def keep(desk: Desk, file: Path) -> None:
    """What is seen; it is to be small enough for a repository."""
    desk.page.screenshot(path=file)
    size_bytes = file.stat().st_size
    assert size_bytes < MOST_BYTES, f"{file.name} has {size_bytes} bytes"
    print(f"{file.name}: {size_bytes} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
