"""A stranger's whole way on the testbed's cluster, with real Slurm, SSH and S3 behind the pages, and an administrator's part."""

from __future__ import annotations

import filecmp
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect
from tests.e2e.firecrest_place import Place
from tests.e2e.portal.desk import LONG_MILLISECONDS, Desk
from tests.e2e.portal.test_upload import MEBIBYTE, pause_close_and_take_up, random_file
from tests.e2e.testbed import Testbed

pytestmark = pytest.mark.timeout(420)
PASSWORD = "seven llamas read maps"
PART_SIZE = "s3.max_part_size"


@pytest.fixture
def stranger(browser: Browser, testbed: Testbed, cluster: Place) -> Iterator[Desk]:
    """Nobody yet; where uploads go is a directory of alice's."""
    said = {"url": testbed.url, "system": testbed.system, "token": testbed.environment["ALICE_TOKEN"]}
    with Desk(said, cluster.top, browser.new_context) as sitting:
        yield sitting
    assert sitting.troubles == []


@pytest.fixture
def alices(stranger: Desk) -> Desk:
    """Her own browser, signed in."""
    stranger.page.goto(f"{stranger.said['url']}/portal/")
    stranger.sign_in_with(stranger.said["token"])
    return stranger


@pytest.fixture
def administrators(stranger: Desk, testbed: Testbed) -> Iterator[Desk]:
    """Another browser, signed in as one."""
    with stranger.neighbour() as sitting:
        sitting.page.goto(f"{testbed.url}/portal/admin")
        sitting.sign_in_with(testbed.environment["ADMIN_TOKEN"])
        yield sitting


def test_a_stranger_registers_gets_a_user_uploads_fetches_and_leaves(
    stranger: Desk, administrators: Desk, testbed: Testbed, tmp_path: Path
) -> None:
    page, name = stranger.page, f"p{secrets.token_hex(8)}"
    page.goto(testbed.url)
    page.get_by_role("link", name="Register").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password again").fill(PASSWORD)
    page.get_by_role("button", name="Register").click()
    expect(page.locator("main")).to_contain_text("Your account has no user on the clusters yet")
    give_user(administrators, name, "alice")
    stranger.sign_out()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").first.click()
    expect(page.get_by_role("navigation", name="Main")).to_contain_text("Files")

    source = random_file(tmp_path / "measurements.h5", 300_000_000)
    stranger.show_folder()
    stranger.drop(source)
    stranger.send()
    stranger.expect_arrived()
    arrived = stranger.folder / source.name
    assert filecmp.cmp(source, arrived, shallow=False)
    assert arrived.stat().st_uid == testbed.alice.uid
    assert sorted(stranger.begun) == list(range(1, 37)), "each part once"

    page.locator("#files").get_by_role("link", name=source.name, exact=True).click()
    page.get_by_role("button", name="Begin").click()
    fetch = page.get_by_role("link", name="Fetch the file")
    expect(fetch).to_be_visible(timeout=LONG_MILLISECONDS)
    with page.expect_download(timeout=LONG_MILLISECONDS) as downloading:
        fetch.click()
    assert downloading.value.suggested_filename == source.name
    assert filecmp.cmp(source, downloading.value.path(), shallow=False)
    page.get_by_role("button", name="I have it").click()
    expect(page.locator("#now .state.done")).to_be_visible()
    transfers = stranger.transfers()
    assert {transfer["direction"]: transfer["state"] for transfer in transfers} == {"upload": "done", "download": "done"}
    for transfer in transfers:
        testbed.wait_until_nothing_is_left(testbed.alice, transfer)

    seen = page.url
    stranger.sign_out()
    page.goto(seen)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def give_user(desk: Desk, account: str, user: str) -> None:
    """On the page that has this account first."""
    desk.page.goto(f"{desk.said['url']}/portal/admin/people?after={account[:-1]}")
    row = desk.page.get_by_role("row").filter(has_text=account)
    expect(row).to_contain_text("waits for a user")
    row.get_by_label(f"User of {account} on the clusters").fill(user)
    row.get_by_role("button", name=f"Save {account}").click()
    expect(desk.page.get_by_role("status").first).to_contain_text(f"The account {account} is changed.")


def test_paused_closed_and_taken_up_again_on_the_cluster(alices: Desk, tmp_path: Path) -> None:
    pause_close_and_take_up(alices, tmp_path)


@pytest.fixture
def part_size_of_the_file(testbed: Testbed) -> Iterator[None]:
    """Whatever a test sets, the file decides again."""
    yield
    ask_as_administrator(testbed, "PATCH", "/admin/settings", json={"unset": [PART_SIZE]})


@pytest.mark.usefixtures("part_size_of_the_file")
def test_an_administrator_changes_the_part_size_and_the_next_upload_has_it(
    alices: Desk, administrators: Desk, testbed: Testbed, tmp_path: Path
) -> None:
    page, begun = administrators.page, datetime.now(UTC)

    def upload(name: str) -> tuple[list[int], int]:
        """The numbers of the parts that were put, and how large the service says that they are."""
        alices.begun.clear()
        source = random_file(tmp_path / name, 20 * MEBIBYTE + 1)
        alices.show_folder()
        alices.drop(source)
        alices.send()
        alices.expect_arrived()
        assert filecmp.cmp(source, alices.folder / name, shallow=False)
        (transfer,) = [transfer for transfer in alices.transfers() if transfer["path"].endswith(f"/{name}")]
        assert transfer["partCount"] == len(alices.begun)
        return sorted(alices.begun), transfer["partSizeBytes"]

    assert upload("before.bin") == ([1, 2, 3], 8 * MEBIBYTE)
    page.get_by_role("link", name="Quotas and limits").click()
    setting = page.locator("form.setting").filter(has=page.locator(f"input[name=name][value='{PART_SIZE}']"))
    setting.get_by_label(PART_SIZE).fill("5 MiB")
    setting.get_by_role("button", name=f"Save {PART_SIZE}").click()
    expect(page.get_by_role("status").first).to_contain_text(f"{PART_SIZE} is changed.")
    assert upload("after.bin") == ([1, 2, 3, 4, 5], 5 * MEBIBYTE)
    assert acts_since(testbed, begun)["settings.change"] == {PART_SIZE: 5 * MEBIBYTE}
    setting.get_by_role("button", name="As the file says").click()
    expect(setting).not_to_contain_text("Changed by")
    assert upload("again.bin") == ([1, 2, 3], 8 * MEBIBYTE)


def ask_as_administrator(testbed: Testbed, method: str, path: str, **request: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {testbed.environment['ADMIN_TOKEN']}"}
    return httpx.request(method, f"{testbed.url}{path}", headers=headers, timeout=30, **request).raise_for_status()


def acts_since(testbed: Testbed, begun: datetime) -> dict[str, Any]:
    """What was set by the last act of each kind, as the audit log has it."""
    answer = ask_as_administrator(testbed, "GET", "/admin/audit", params={"since": begun.isoformat(), "limit": 10_000})
    return {line["what"]: line["detail"].get("set") for line in map(json.loads, answer.text.splitlines())}
