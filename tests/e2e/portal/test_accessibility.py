"""What axe finds on the pages, light and dark, on a desk's screen and a phone's: nothing serious."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect
from tests.e2e.portal.desk import AXE, LONG_MILLISECONDS, Desk
from tests.e2e.portal.machine import Machine

SERIOUS = {"serious", "critical"}
SCREENS: dict[str, dict[str, Any]] = {
    "desk": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "phone in the dark": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
}


@pytest.fixture(params=SCREENS)
def seen(
    request: pytest.FixtureRequest, browser: Browser, embedded: tuple[dict[str, str], Path], tmp_path: Path
) -> Iterator[Desk]:
    """Its pages let axe in, which their policy does not."""
    said, root = embedded
    folder = root / tmp_path.name
    folder.mkdir()
    with Desk(said, folder, partial(browser.new_context, bypass_csp=True, **SCREENS[request.param])) as sitting:
        yield sitting


def findings(desk: Desk) -> list[str]:
    """Rule, what it is about, where."""
    desk.page.evaluate(AXE.read_text(encoding="utf-8"))
    found = desk.page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]


def test_nothing_serious_on_the_pages(seen: Desk) -> None:
    found = {}
    for path in ("welcome", "files", "transfers", "account", "tokens"):
        seen.page.goto(f"{seen.said['url']}/portal/{path}")
        found[path] = findings(seen)
    assert not any(found.values()), found


def test_nothing_serious_while_uploading(seen: Desk, tmp_path: Path) -> None:
    source = tmp_path / "small.txt"
    source.write_text("small")
    found = {}
    seen.show_folder()
    found["empty"] = findings(seen)
    seen.drop(source)
    expect(seen.page.locator(".uppy-Dashboard-Item")).to_be_visible()
    found["chosen"] = findings(seen)
    seen.send()
    seen.expect_arrived()
    found["arrived"] = findings(seen)
    seen.page.locator(".upload-landing a").click()
    expect(seen.page.get_by_role("heading", level=1, name=source.name)).to_be_visible()
    found["transfer"] = findings(seen)
    assert not any(found.values()), found


def width_beyond_the_screen(desk: Desk) -> int:
    return int(desk.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.mark.timeout(300)
def test_nothing_serious_on_the_pages_of_a_node_and_none_is_too_wide(seen: Desk, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    found, widths = {}, {}

    def look(name: str) -> None:
        found[name], widths[name] = findings(seen), width_beyond_the_screen(seen)

    seen.page.goto(f"{seen.said['url']}/portal/nodes")
    look("list")
    seen.page.get_by_label("Name", exact=True).fill(f"a node with a long name, {tmp_path.name}")
    seen.page.get_by_label("Directory that you will send from").fill(str(machine.send))
    seen.page.get_by_label("Directory that files arrive in").fill(str(machine.receive))
    seen.page.get_by_role("button", name="Get the command").click()
    look("command")
    machine.type(seen.page.get_by_label("The command").input_value())
    seen.page.get_by_role("link", name="To the node").click()
    node = seen.page.url
    for number in range(2):
        source = tmp_path / f"{number}.txt"
        source.write_text("small")
        seen.page.goto(f"{node}/upload")
        expect(seen.page.locator("#upload .uppy-Dashboard-inner")).to_be_visible()
        if number == 0:
            look("upload")
        seen.drop(source)
        seen.send()
        expect(seen.page.locator(".upload-landing .state")).to_have_count(1)
    seen.page.goto(node)
    expect(seen.page.locator("#commands li")).to_have_count(2)
    look("queue")
    machine.start()
    try:
        expect(seen.page.locator("#ended .state.done")).to_have_count(2, timeout=LONG_MILLISECONDS)
        seen.page.get_by_role("button", name="Check the network").click()
        expect(seen.page.get_by_role("link", name="What was measured")).to_be_visible(timeout=LONG_MILLISECONDS)
        look("history")
        seen.page.get_by_role("link", name="What was measured").click()
        expect(seen.page.locator("table.measures rect").first).to_be_visible()
        look("check")
    finally:
        machine.stop()
    for page in ("grants", "settings", "store"):
        seen.page.goto(f"{node}/{page}")
        look(page)
    seen.page.goto(f"{node}/grants")
    seen.page.locator("form[action$='/invitations'] button").click()
    look("invitation link")
    seen.page.goto(f"{node}/grants")
    look("grants with one")
    for page in ("send", "invitation", "nodes"):
        seen.page.goto(f"{seen.said['url']}/portal/{page}")
        look(page)
    assert not any(found.values()), found
    assert not any(width > 0 for width in widths.values()), widths


@pytest.mark.timeout(300)
def test_nothing_serious_on_the_page_of_a_transfer_between_nodes(seen: Desk, tmp_path: Path) -> None:
    lab, vault = Machine(tmp_path / "lab"), Machine(tmp_path / "vault", receives=True)
    try:
        begin_direct(seen, lab, vault, f"of {tmp_path.name}")
        expect(seen.page.get_by_role("button", name="Stop for now")).to_be_visible(timeout=LONG_MILLISECONDS)
        under_way = findings(seen)
        expect(seen.page.locator("#rates")).to_be_visible(timeout=LONG_MILLISECONDS)
    finally:
        lab.stop()
        vault.stop()
    assert (under_way, findings(seen), width_beyond_the_screen(seen)) == ([], [], 0)


def begin_direct(desk: Desk, lab: Machine, vault: Machine, names: str) -> None:
    """Its page is open, and it takes some seconds."""
    ids = [machine.enrol(desk.said, f"{name} {names}") for name, machine in (("Lab", lab), ("Vault", vault))]
    with (lab.send / "run.h5").open("wb") as file:
        file.truncate(12_000_000)
    desk.page.goto(f"{desk.said['url']}/portal/send?from=node:{ids[0]}&to=node:{ids[1]}&source=/run.h5&target=/run.h5&most=2+MB")
    desk.page.get_by_role("button", name="Send", exact=True).click()
    expect(desk.page.get_by_role("heading", level=1, name="run.h5")).to_be_visible()


def test_nothing_serious_on_the_pages_of_administrators(seen: Desk, sign: Callable[..., str]) -> None:
    found, widths = {}, {}
    begin_something(seen)
    with seen.neighbour() as administrator:
        administrator.page.goto(f"{seen.said['url']}/portal/admin")
        administrator.sign_in_with(sign("root", is_admin=True))
        for page in ("", "/people", "/limits", "/transfers", "/audit", "/orphans"):
            administrator.page.goto(f"{seen.said['url']}/portal/admin{page}")
            found[page], widths[page] = findings(administrator), width_beyond_the_screen(administrator)
            assert page != "/limits" or administrator.page.locator("#usage tbody tr").count(), "somebody uses something"
    assert not any(found.values()), found
    assert not any(width > 0 for width in widths.values()), widths


def begin_something(desk: Desk) -> None:
    """An upload that waits for its parts."""
    headers = {"Authorization": f"Bearer {desk.said['token']}"}
    body = {"destination": {"system": desk.said["system"], "path": str(desk.folder / "begun.bin")}, "sizeBytes": 10**9}
    httpx.post(f"{desk.said['url']}/transfers", json=body, headers=headers, timeout=60).raise_for_status()


def test_no_page_is_wider_than_its_screen(seen: Desk) -> None:
    for path in ("welcome", "files", "transfers", "account", "tokens"):
        seen.page.goto(f"{seen.said['url']}/portal/{path}")
        assert width_beyond_the_screen(seen) <= 0, path
