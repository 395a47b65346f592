"""Makes the pictures of the portal's node pages anew: ``python -m tests.e2e.portal.pictures docs/pictures``.

A service of its own, a node with a real agent, and what people would have there. Needs Chromium and ``make portal``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import expect
from tests.e2e.firecrest_place import stagecoach_up
from tests.e2e.portal.desk import LONG_MILLISECONDS, Desk
from tests.e2e.portal.machine import Machine

MOST_BYTES = 150_000
DESK, PHONE = {"width": 1120, "height": 760}, {"width": 390, "height": 760}
ARRIVED = ("calibration.h5", "run-0141.h5")
WAITING = ("run-0142.h5", "run-0143.h5", "notes.tar")
# File, page below the node's ("" is the list), colours, screen, and the heading that is at the top.
PICTURES: tuple[tuple[str, str | None, str, dict[str, int], str | None], ...] = (
    ("nodes-list-dark.png", None, "dark", DESK, None),
    ("node-light.png", "", "light", DESK, None),
    ("node-phone-dark.png", "", "dark", PHONE, "Queue"),
    ("node-grants-light.png", "/grants", "light", DESK, None),
    ("network-check-light.png", "/check", "light", DESK, None),
    ("network-check-phone-dark.png", "/check", "dark", PHONE, None),
)


class Story:
    """What is on the pages, made by the API as a person with a token would."""

    def __init__(self, said: dict[str, str], machine: Machine) -> None:
        self._http = httpx.Client(base_url=said["url"], headers={"Authorization": f"Bearer {said['token']}"}, timeout=60)
        self._said = said
        self._machine = machine

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(path, json=body).raise_for_status()
        made: dict[str, Any] = answer.json()
        return made

    def make_node(self) -> str:
        """Its id; the agent is enrolled and runs."""
        node = self.ask("/nodes", {"name": "Beamline archive"})
        places = f"--send {self._machine.send} --receive {self._machine.receive}"
        command = f"stagecoach agent enrol --server {self._said['url']} --token - {places} <<'END'\n{node['enrolmentToken']}\nEND"
        self._machine.type(command)
        self._machine.start()
        node_id: str = node["id"]
        return node_id

    def send(self, node_id: str, name: str, content: bytes) -> None:
        """Whole: it arrives."""
        begun = self.ask("/transfers", {**self._to(node_id, name), "sizeBytes": len(content)})
        httpx.put(begun["upload"]["partUrls"][0], content=content).raise_for_status()
        self.ask(f"/transfers/{begun['transfer']['id']}/finish", {})

    def begin(self, node_id: str, name: str, size_bytes: int) -> None:
        """It waits in the queue for its parts."""
        self.ask("/transfers", {**self._to(node_id, name), "sizeBytes": size_bytes})

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
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        place = Path(name)
        with stagecoach_up(place) as (said, root), Desk(said, root, place / "profile") as desk:
            machine = Machine(place / "machine")
            try:
                draw(desk, machine, target)
            finally:
                machine.stop()


def draw(desk: Desk, machine: Machine, target: Path) -> None:
    story = Story(desk.said, machine)
    node_id = story.make_node()
    page, node = desk.page, f"{desk.said['url']}/portal/nodes/{node_id}"
    page.goto(node)
    for name in ARRIVED:
        story.send(node_id, name, b"measured" * 1000)
    expect(page.locator("#ended .state.done")).to_have_count(len(ARRIVED), timeout=LONG_MILLISECONDS)
    page.get_by_role("button", name="Check the network").click()
    check = page.get_by_role("link", name="What was measured")
    expect(check).to_be_visible(timeout=LONG_MILLISECONDS)
    pages = {"/check": f"{desk.said['url']}{check.get_attribute('href')}", None: f"{desk.said['url']}/portal/nodes"}
    for name in WAITING:
        story.begin(node_id, name, 10**8)
    story.grant(node_id, "bob", "/from-bob", 2 * 10**12)
    story.invite(node_id)
    for file, path, colours, screen, heading in PICTURES:
        page.set_viewport_size(screen)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
        page.goto(pages.get(path) or f"{node}{path}")
        if heading is not None:
            page.get_by_role("heading", name=heading, exact=True).evaluate("heading => heading.scrollIntoView()")
        page.screenshot(path=target / file)
        size_bytes = (target / file).stat().st_size
        assert size_bytes < MOST_BYTES, f"{file} has {size_bytes} bytes"
        print(f"{file}: {size_bytes} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
