"""Uploads as a person does them: in Chromium, by drag and drop, with a network and a browser that come and go."""

from __future__ import annotations

import filecmp
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Route, expect
from tests.e2e.portal.desk import LAUNCH, Desk

MEBIBYTE = 1024 * 1024
PART_BYTES = 8 * MEBIBYTE


def random_file(path: Path, size_bytes: int) -> Path:
    with path.open("wb") as file:
        for at in range(0, size_bytes, MEBIBYTE):
            file.write(os.urandom(min(MEBIBYTE, size_bytes - at)))
    return path


def contents(top: Path) -> dict[str, bytes | None]:
    """By path; None is a directory. A browser knows neither permissions nor fractions of seconds."""
    return {str(path.relative_to(top)): None if path.is_dir() else path.read_bytes() for path in top.rglob("*")}


def until(desk: Desk, is_so: Callable[[], bool], what: str) -> None:
    """The browser's events are heard meanwhile."""
    deadline = time.monotonic() + 90
    while not is_so():
        assert time.monotonic() < deadline, what
        desk.page.wait_for_timeout(50)


def pause_close_and_take_up(desk: Desk, tmp_path: Path) -> None:
    """The page goes in the middle of an upload; another one ends it, and puts again nothing that the store had."""
    source = random_file(tmp_path / "long.bin", 10 * PART_BYTES + 12345)
    desk.show_folder()
    desk.slow_down(16_000_000)
    desk.drop(source)
    desk.send()
    until(desk, lambda: len(desk.taken) >= 3, "some parts are put")
    desk.page.locator(".uppy-StatusBar-actions [aria-label='Pause']").click()
    expect(desk.page.locator(".uppy-StatusBar-actions [aria-label='Resume']")).to_be_visible()
    until(desk, lambda: bool(desk.transfers()[0]["bytesStaged"]), "the service has seen them")
    before, begun, count = set(desk.taken), set(desk.begun), len(desk.begun)
    assert len(before) < 11
    desk.close_page()
    assert len(desk.begun) == count, "nothing was put while it was paused"

    desk.begun.clear()
    desk.show_folder()
    waiting = desk.page.locator(".upload-unfinished li")
    expect(waiting).to_contain_text(str(desk.folder / source.name))
    other = random_file(tmp_path / "other.bin", 100)
    waiting.locator("input[type=file]").set_input_files(other)
    expect(waiting.get_by_role("alert")).to_contain_text("The upload is of “long.bin”, and this is “other.bin”.")
    waiting.locator("input[type=file]").set_input_files(source)
    desk.expect_arrived()
    assert not before & set(desk.begun), "what the store had was not put again"
    # What was broken off may have reached the store all the same.
    assert set(desk.begun) | begun == set(range(1, 12))
    assert filecmp.cmp(source, desk.folder / source.name, shallow=False)
    assert len(desk.transfers()) == 1
    expect(waiting).to_have_count(0)


def test_a_file_of_300_mb_lands_equal(desk: Desk, tmp_path: Path) -> None:
    source = random_file(tmp_path / "measurements.h5", 300_000_000)
    desk.show_folder()
    desk.drop(source)
    desk.send()
    desk.expect_arrived()
    assert filecmp.cmp(source, desk.folder / source.name, shallow=False)
    assert sorted(desk.begun) == list(range(1, 37)), "each part once"
    (transfer,) = desk.transfers()
    assert "part_md5" in {proof["how"] for proof in transfer["proved"]}, "the digests of the browser were compared on the system"
    expect(desk.page.locator("#files")).to_contain_text(source.name)


@pytest.mark.timeout(420)
def test_paused_closed_and_taken_up_again(desk: Desk, tmp_path: Path) -> None:
    pause_close_and_take_up(desk, tmp_path)


def test_paused_and_resumed_in_the_page(desk: Desk, tmp_path: Path) -> None:
    source = random_file(tmp_path / "pause.bin", 5 * PART_BYTES)
    desk.show_folder()
    desk.slow_down(16_000_000)
    desk.drop(source)
    desk.send()
    until(desk, lambda: len(desk.taken) >= 1, "a part is put")
    desk.page.locator(".uppy-StatusBar-actions [aria-label='Pause']").click()
    desk.page.locator(".uppy-StatusBar-actions [aria-label='Resume']").click()
    desk.expect_arrived()
    assert filecmp.cmp(source, desk.folder / source.name, shallow=False)


def test_folders_and_hostile_names(desk: Desk, tmp_path: Path) -> None:
    top = tmp_path / "a folder"
    deep = top / ("d" * 120) / "ü $(touch x) <b>"
    deep.mkdir(parents=True)
    (top / "nothing in it").mkdir()
    (top / "empty").touch()
    random_file(deep / "it's; `rm` & \\ \".bin", 9 * MEBIBYTE)
    for number in range(150):
        (deep / f"{number}.txt").write_text(str(number))
    single = tmp_path / "<img src=x onerror=alert(1)> $(id) 'é'.txt"
    single.write_text("hostile")
    empty = tmp_path / "empty.dat"
    empty.touch()
    desk.show_folder()
    desk.drop(top, single, empty)
    expect(desk.page.locator(".uppy-Dashboard-Item")).to_have_count(3)
    desk.send()
    desk.expect_arrived(3)
    assert (desk.folder / single.name).read_text() == "hostile"
    assert (desk.folder / "empty.dat").stat().st_size == 0
    assert contents(top) == contents(desk.folder / "a folder")


def test_the_transfers_page_is_live(desk: Desk, tmp_path: Path) -> None:
    desk.show_folder()
    desk.slow_down(6_000_000)
    desk.drop(random_file(tmp_path / "watched.bin", 12 * PART_BYTES))
    desk.send()
    until(desk, lambda: len(desk.begun) > 0, "it has begun")
    other = desk.open_page()
    other.goto(f"{desk.said['url']}/portal/transfers")
    other.locator("#transfers").get_by_role("link", name="watched.bin").click()
    chart = other.locator("#rate-chart svg")
    expect(chart).to_have_attribute("aria-label", re.compile(r"Rate over time\. Now .*/s"), timeout=60_000)
    desk.expect_arrived()
    expect(other.locator("#now .state.done")).to_be_visible(timeout=60_000)


def test_a_press_is_not_lost_to_a_page_that_keeps_itself_up_to_date(desk: Desk) -> None:
    body = {"destination": {"system": desk.said["system"], "path": str(desk.folder / "x")}, "sizeBytes": 10}
    headers = {"Authorization": f"Bearer {desk.said['token']}"}
    begun = httpx.post(f"{desk.said['url']}/transfers", json=body, headers=headers, timeout=60).raise_for_status().json()
    desk.page.goto(f"{desk.said['url']}/portal/transfers/{begun['transfer']['id']}")
    with desk.page.expect_response(lambda answer: answer.url.endswith("/now")):
        box = desk.page.get_by_role("button", name="Cancel the transfer").bounding_box()
        assert box is not None
        desk.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        desk.page.mouse.down()
    # The same piece was fetched anew meanwhile.
    desk.page.wait_for_timeout(200)
    desk.page.mouse.up()
    expect(desk.page.get_by_role("status").first).to_contain_text("It is cancelled")


def test_urls_that_ended_are_signed_again(desk: Desk, tmp_path: Path) -> None:
    source = random_file(tmp_path / "expired.bin", 4 * PART_BYTES)
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if route.request.method == "PUT" and len(refused) < 2:
            refused.append(route.request.url)
            route.fulfill(status=403, body="Request has expired", headers={"Access-Control-Allow-Origin": desk.said["url"]})
        else:
            route.continue_()

    desk.context.route("**/*partNumber=2*", refuse_once)
    desk.show_folder()
    with desk.page.expect_response(lambda answer: answer.url.endswith("/parts")):
        desk.drop(source)
        desk.send()
    desk.expect_arrived()
    assert len(refused) == 2
    assert filecmp.cmp(source, desk.folder / source.name, shallow=False)


def test_a_network_that_goes_and_comes(desk: Desk, tmp_path: Path) -> None:
    source = random_file(tmp_path / "offline.bin", 6 * PART_BYTES)
    desk.show_folder()
    desk.slow_down(16_000_000)
    desk.drop(source)
    desk.send()
    until(desk, lambda: len(desk.taken) >= 1, "a part is put")
    desk.context.set_offline(True)
    until(desk, lambda: len(desk.begun) > len(desk.taken), "puts are under way or failed")
    desk.context.set_offline(False)
    desk.expect_arrived()
    assert filecmp.cmp(source, desk.folder / source.name, shallow=False)
    assert len(desk.transfers()) == 1


def test_cancelled_it_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.show_folder()
    desk.slow_down(8_000_000)
    desk.drop(random_file(tmp_path / "unwanted.bin", 6 * PART_BYTES))
    desk.send()
    until(desk, lambda: len(desk.taken) >= 1, "a part is put")
    desk.page.locator(".uppy-Dashboard-Item-action--remove").click()
    until(desk, lambda: desk.transfers()[0]["state"] == "cancelled", "the transfer is cancelled")
    desk.close_page()
    desk.show_folder()
    expect(desk.page.locator(".upload-unfinished li")).to_have_count(0)
    assert list(desk.folder.iterdir()) == []


@pytest.fixture
def whole_browser(browser: Browser, embedded: tuple[dict[str, str], Path], tmp_path: Path) -> Iterator[Desk]:
    """Of processes of its own, which have the profile's name."""
    said, root = embedded
    launch = partial(browser.browser_type.launch_persistent_context, tmp_path / "profile", **LAUNCH)
    with Desk(said, root, launch) as sitting:
        yield sitting
    assert sitting.troubles == []


@pytest.mark.timeout(1800)
def test_memory_stays_flat(whole_browser: Desk, tmp_path: Path) -> None:
    """None of the browser's processes grows by more than 384 MiB, however large the file is."""
    desk, size_bytes = whole_browser, int(os.environ.get("STAGECOACH_BROWSER_UPLOAD_BYTES", 1024 * MEBIBYTE))
    source = tmp_path / "huge.bin"
    with source.open("wb") as file:
        file.truncate(size_bytes)
    desk.show_folder()
    profile, begun = tmp_path / "profile", time.monotonic()
    before, seen = max(resident_bytes(profile).values()), [0] * 10
    desk.drop(source)
    desk.send()
    arrived = desk.page.locator(".upload-landing .state.done")
    while not arrived.count():
        assert time.monotonic() - begun < 1700, "it has arrived"
        tenth = min(9, 10 * PART_BYTES * len(desk.taken) // size_bytes)
        seen[tenth] = max(seen[tenth], *resident_bytes(profile).values())
        desk.page.wait_for_timeout(100)
    in_mebibytes, seconds = [round(size / MEBIBYTE) for size in (before, *seen)], time.monotonic() - begun
    print(f"{size_bytes} bytes in {seconds:.0f} s; MiB of the largest process before, and in each tenth: {in_mebibytes}")
    assert max(seen) - before < 384 * MEBIBYTE, in_mebibytes
    assert (desk.folder / source.name).stat().st_size == size_bytes
    (desk.folder / source.name).unlink()


def resident_bytes(profile: Path) -> dict[int, int]:
    """Of the processes of the browser with this profile, by pid."""
    sizes = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(profile).encode() not in (place / "cmdline").read_bytes():
                continue
            pages = int((place / "statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes[int(place.name)] = pages * os.sysconf("SC_PAGE_SIZE")
    return sizes
