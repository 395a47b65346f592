"""What axe finds on the pages, light and dark, on a desk's screen and a phone's: nothing serious."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.e2e.portal.desk import AXE, Desk

SERIOUS = {"serious", "critical"}
SCREENS: dict[str, dict[str, Any]] = {
    "desk": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "phone in the dark": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
}


@pytest.fixture(params=SCREENS)
def seen(
    request: pytest.FixtureRequest, browser_is_there: None, embedded: tuple[dict[str, str], Path], tmp_path: Path
) -> Iterator[Desk]:
    """Its pages let axe in, which their policy does not."""
    said, root = embedded
    folder = root / tmp_path.name
    folder.mkdir()
    with Desk(said, folder, tmp_path / "profile", bypass_csp=True, **SCREENS[request.param]) as sitting:
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


def test_no_page_is_wider_than_its_screen(seen: Desk) -> None:
    for path in ("welcome", "files", "transfers", "account", "tokens"):
        seen.page.goto(f"{seen.said['url']}/portal/{path}")
        width = seen.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert width <= 0, path
