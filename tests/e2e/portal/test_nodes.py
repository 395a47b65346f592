"""Nodes as people use them: registered, run, sent to, shared and revoked, in Chromium and with the agent as it is shipped."""

from __future__ import annotations

import filecmp
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect
from tests.e2e.portal.desk import LONG_MILLISECONDS, Desk
from tests.e2e.portal.machine import Machine
from tests.e2e.portal.test_upload import MEBIBYTE, random_file

pytestmark = pytest.mark.timeout(420)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine")
    yield made
    made.stop()


@pytest.fixture
def bob(sign: Callable[..., str]) -> str:
    """His token."""
    return sign("bob")


def open_path(desk: Desk, path: str) -> None:
    desk.page.goto(f"{desk.said['url']}/portal/{path}")


def make_node(desk: Desk, machine: Machine, name: str, *, starts: bool = True) -> str:
    """By the form, with the command of the page; the path of its page. The machine's agent runs."""
    open_path(desk, "nodes")
    desk.page.get_by_label("Name", exact=True).fill(name)
    desk.page.get_by_label("Directory that you will send from").fill(str(machine.send))
    desk.page.get_by_label("Directory that files arrive in").fill(str(machine.receive))
    desk.page.get_by_role("button", name="Get the command").click()
    command = desk.page.get_by_label("The command").input_value()
    assert "--token - " in command
    printed = machine.type(command)
    assert f"This machine is the node {name}" in printed
    desk.page.get_by_role("link", name="To the node").click()
    if starts:
        machine.start()
        # The page is not loaded again: it keeps itself up to date.
        expect(desk.page.locator("#now .state.done").first).to_contain_text("Online", timeout=60_000)
        machine.wait_until_heard(desk.said, desk.page.url.rpartition("/")[2])
    return desk.page.url.partition("/portal/")[2]


def send_to(desk: Desk, node: str, *files: Path, folder: str = "/") -> None:
    """By dropping the files on the node's page."""
    open_path(desk, f"{node}/upload?path={folder}")
    expect(desk.page.locator("#upload .uppy-Dashboard-inner")).to_be_visible()
    desk.drop(*files)
    desk.send()


def order_of(desk: Desk) -> list[str]:
    return [text.strip() for text in desk.page.locator("#commands li .name").all_inner_texts()]


def test_a_machine_becomes_a_node_and_a_file_arrives(desk: Desk, machine: Machine, tmp_path: Path) -> None:
    node = make_node(desk, machine, "lab machine")
    source = random_file(tmp_path / "it's measured; $(touch x).h5", 20 * MEBIBYTE + 17)
    send_to(desk, node, source, folder="/run%201")
    desk.expect_arrived()
    assert filecmp.cmp(source, machine.receive / "run 1" / source.name, shallow=False)
    open_path(desk, node)
    expect(desk.page.locator("#ended")).to_contain_text(source.name)
    desk.page.locator("#ended").get_by_role("link", name=source.name).click()
    expect(desk.page.get_by_role("heading", level=1, name=source.name)).to_be_visible()
    expect(desk.page.locator("#now")).to_contain_text("Staging area → lab machine")
    # And from there to this machine's system, by the form.
    open_path(desk, node)
    desk.page.get_by_role("link", name="Send from it").click()
    made = random_file(machine.send / "result.bin", 3 * MEBIBYTE)
    desk.page.get_by_label("Path there").first.fill("/result.bin")
    desk.page.get_by_label("To", exact=True).select_option(desk.said["system"])
    desk.page.get_by_label("Path there").last.fill(str(desk.folder / "result.bin"))
    desk.page.get_by_role("button", name="Send", exact=True).click()
    expect(desk.page.locator("#now .state.done").first).to_be_visible(timeout=LONG_MILLISECONDS)
    assert filecmp.cmp(made, desk.folder / "result.bin", shallow=False)


def test_the_queue_is_ordered_by_keys_and_by_hand(desk: Desk, machine: Machine, tmp_path: Path) -> None:
    node = make_node(desk, machine, "away", starts=False)
    names = ["first.bin", "second.bin", "third.bin", "fourth.bin"]
    for name in names:
        send_to(desk, node, random_file(tmp_path / name, 1000 + len(name)))
        expect(desk.page.locator(".upload-landing .state")).to_have_count(1)
    open_path(desk, node)
    assert order_of(desk) == names
    # With keys alone; the focus stays on the arrow that was pressed.
    later = desk.page.locator("#commands li").first.get_by_role("button", name="Later")
    later.focus()
    pressed = later.get_attribute("id")
    desk.page.keyboard.press("Enter")
    expect(desk.page.locator("#told")).to_contain_text("It is now number 2 of the 4 that wait.")
    assert order_of(desk) == ["second.bin", "first.bin", "third.bin", "fourth.bin"]
    assert desk.page.evaluate("() => document.activeElement.id") == pressed
    rows = desk.page.locator("#commands li")
    rows.nth(3).drag_to(rows.nth(0), target_position={"x": 30, "y": 3})
    expect(desk.page.locator("#told")).to_contain_text("The queue is in its new order.")
    assert order_of(desk) == ["fourth.bin", "second.bin", "first.bin", "third.bin"]
    desk.page.locator("#commands li").nth(1).get_by_role("button", name="Cancel").click()
    expect(desk.page.locator("#told")).to_contain_text("It is cancelled, with its transfer.")
    expect(desk.page.locator("#commands li")).to_have_count(3)
    machine.start()
    expect(desk.page.locator("#ended .state.done")).to_have_count(3, timeout=LONG_MILLISECONDS)
    done = desk.page.locator("#ended tbody tr").filter(has_text="Done").locator("th a").all_inner_texts()
    assert sorted(done) == ["first.bin", "fourth.bin", "third.bin"]
    assert sorted(path.name for path in machine.receive.iterdir()) == ["first.bin", "fourth.bin", "third.bin"]
    arrived = {path.name: path.stat().st_ctime_ns for path in machine.receive.iterdir()}
    assert sorted(arrived, key=arrived.__getitem__) == ["fourth.bin", "first.bin", "third.bin"]
    row = desk.page.locator("#ended tbody tr").filter(has_text="second.bin")
    row.get_by_role("button", name="Take off the list").click()
    expect(desk.page.locator("#ended")).not_to_contain_text("second.bin")


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Machine]:
    """Another machine, which others reach directly."""
    made = Machine(tmp_path / "vault", receives=True)
    yield made
    made.stop()


def test_a_transfer_between_nodes_is_stopped_and_goes_on_from_its_page(desk: Desk, machine: Machine, vault: Machine) -> None:
    make_node(desk, vault, "vault")
    node = make_node(desk, machine, "lab")
    made = random_file(machine.send / "run.h5", 24 * MEBIBYTE + 5)
    open_path(desk, node)
    desk.page.get_by_role("link", name="Send from it").click()
    desk.page.get_by_label("Path there").first.fill("/run.h5")
    desk.page.get_by_label("To", exact=True).select_option(label="vault")
    desk.page.get_by_label("Path there").last.fill("/from-lab/run.h5")
    desk.page.get_by_label("Road").select_option("direct")
    desk.page.get_by_label("At most, in a second").fill("3 MB")
    desk.page.get_by_role("button", name="Send", exact=True).click()
    now = desk.page.locator("#now")
    expect(now).to_contain_text("lab → vault")
    # Some of it is there, told by the page that keeps itself up to date.
    some = desk.page.locator("#now progress:not([value='0']):not([value='100'])")
    expect(some).to_be_visible(timeout=LONG_MILLISECONDS)
    stop = desk.page.get_by_role("button", name="Stop for now")
    stop.click()
    expect(now.locator(".state.failed")).to_be_visible()
    expect(now).to_contain_text("a retry goes on from what has arrived")
    assert not (vault.receive / "from-lab" / "run.h5").exists()
    desk.page.get_by_role("button", name="Retry").click()
    expect(now.locator(".state.done")).to_be_visible(timeout=LONG_MILLISECONDS)
    assert filecmp.cmp(made, vault.receive / "from-lab" / "run.h5", shallow=False)
    assert [path.name for path in vault.receive.rglob(".stagecoach*")] == []
    # What was found of the way, and how fast it went.
    expect(desk.page.get_by_role("heading", name="To the receiving node 127.0.0.1")).to_be_visible()
    expect(desk.page.locator("#rates")).to_contain_text(re.compile(r"/s on average in \d+ seconds?, .*/s at most\."))
    assert desk.page.locator("#rates rect").count() >= 2


def test_a_node_sends_to_a_store_with_a_key_that_is_typed(
    desk: Desk, machine: Machine, embedded: tuple[dict[str, str], Path]
) -> None:
    state = embedded[1].parent / "state"
    keys = json.loads((state / "store-keys.json").read_text())
    store = httpx.URL(begin_upload(desk, 1)["upload"]["partUrls"][0])
    bucket = store.path.split("/")[1]
    node = make_node(desk, machine, "with a key")
    made = random_file(machine.send / "result.h5", 9 * MEBIBYTE + 7)
    open_path(desk, node)
    desk.page.get_by_role("link", name="Send to a store").click()
    desk.page.get_by_label("Path there").fill("/result.h5")
    desk.page.get_by_label("Address").fill(store.host)
    desk.page.get_by_label("Port").fill(str(store.port))
    desk.page.get_by_label("It speaks https").uncheck()
    desk.page.get_by_label("Bucket").fill(bucket)
    desk.page.get_by_label("Folder in it").fill("by hand")
    desk.page.get_by_label("Access key").fill(keys["access_key_id"])
    secret = desk.page.get_by_label("Secret key")
    assert (secret.get_attribute("type"), secret.get_attribute("autocomplete")) == ("password", "new-password")
    secret.fill(keys["secret_access_key"])
    desk.page.get_by_role("button", name="Send", exact=True).click()
    expect(desk.page.locator("main")).to_contain_text("It is in the node’s queue.")
    assert keys["secret_access_key"] not in desk.page.content()
    row = desk.page.locator("#ended tbody tr").filter(has_text="result.h5")
    expect(row).to_contain_text("9.44 MB, compared", timeout=LONG_MILLISECONDS)
    (arrived,) = (state / "store").rglob("by hand/result.h5")
    assert filecmp.cmp(made, arrived, shallow=False)


def begin_upload(desk: Desk, size_bytes: int) -> dict[str, Any]:
    """By the API; it has made the bucket when it answers."""
    body = {"destination": {"system": desk.said["system"], "path": str(desk.folder / "begun.bin")}, "sizeBytes": size_bytes}
    headers = {"Authorization": f"Bearer {desk.said['token']}"}
    answer = httpx.post(f"{desk.said['url']}/transfers", json=body, headers=headers, timeout=60).raise_for_status()
    begun: dict[str, Any] = answer.json()
    httpx.delete(f"{desk.said['url']}/transfers/{begun['transfer']['id']}", headers=headers, timeout=60).raise_for_status()
    return begun


def test_the_network_is_checked_and_told_in_words(desk: Desk, machine: Machine) -> None:
    make_node(desk, machine, "checked")
    desk.page.get_by_role("button", name="Check the network").click()
    # In the one place or the other: whoever is quick clicks before the scripts are there.
    expect(desk.page.locator("main")).to_contain_text("is asked to check its network")
    desk.page.get_by_role("link", name="What was measured").click(timeout=LONG_MILLISECONDS)
    expect(desk.page.get_by_role("heading", name="To this service")).to_be_visible()
    expect(desk.page.get_by_role("heading", name="To the staging area")).to_be_visible()
    assert desk.page.locator("table.measures").count() == 2
    said = [float(text) for text in desk.page.locator("table.measures td.number").all_inner_texts()]
    bars = desk.page.locator("table.measures rect")
    drawn = bars.evaluate_all("bars => bars.map((bar) => bar.getBoundingClientRect().width)")
    assert len(said) == len(drawn) >= 6
    longest = said.index(max(said))
    assert drawn[longest] == max(drawn)
    assert max(drawn) > 3 * min(drawn) > 0, "what took longer is longer"


def test_somebody_is_invited_sends_and_is_refused_again(desk: Desk, machine: Machine, bob: str, tmp_path: Path) -> None:
    node = make_node(desk, machine, "shared")
    desk.page.get_by_role("link", name="Who may send").click()
    invite = desk.page.locator("form[action$='/invitations']")
    invite.get_by_label("For whom").fill("Bob of the other lab")
    invite.get_by_label("Below the folder").fill("/from-bob")
    invite.get_by_label("At most").fill("50 MB")
    invite.get_by_role("button", name="Make the link").click()
    link = desk.page.get_by_label("The link").input_value()
    with desk.neighbour() as guest:
        # As from a mail: the browser comes from elsewhere, and nobody is signed in.
        guest.page.goto(link)
        guest.page.get_by_role("link", name="Sign in").click()
        guest.sign_in_with(bob)
        field = guest.page.get_by_label("The link, or its code")
        expect(field).to_have_value(re.compile(r"^sci_"))
        assert "#" not in guest.page.url
        guest.page.get_by_role("button", name="Accept it as bob").click()
        expect(guest.page.locator("main")).to_contain_text("You may send to “shared”")
        assert guest.page.evaluate("() => sessionStorage.length") == 0
        source = random_file(tmp_path / "from bob.bin", 9 * MEBIBYTE + 1)
        expect(guest.page.locator("#upload .uppy-Dashboard-inner")).to_be_visible()
        guest.drop(source)
        guest.send()
        guest.expect_arrived()
        assert filecmp.cmp(source, machine.receive / "from-bob" / source.name, shallow=False)
        open_path(guest, "nodes")
        granted = guest.page.get_by_role("region", name="Nodes that you may send to")
        expect(granted).to_contain_text("9.44 MB of 50.0 MB")

        open_path(desk, f"{node}/grants")
        expect(desk.page.locator("#grants")).to_contain_text("Bob of the other lab")
        desk.page.locator("#grants").get_by_role("button", name="Revoke").click()
        expect(desk.page.locator("main")).to_contain_text("Nobody but you sends to this node")
        guest.page.reload()
        expect(granted).to_have_count(0)

        # By name, where one knows it.
        grant = desk.page.locator("form[action$='/grants']")
        grant.get_by_label("User").fill("bob")
        grant.get_by_role("button", name="Let them send").click()
        guest.page.reload()
        expect(granted).to_contain_text("shared")

    open_path(desk, f"{node}/settings")
    desk.page.get_by_label("Type “shared” to revoke it").fill("shared")
    desk.page.get_by_role("button", name="Revoke the node").click()
    expect(desk.page.locator("main")).to_contain_text("“shared” is revoked")
    assert machine.wait_for_its_end() == 3
    desk.sign_out()
    open_path(desk, node)
    expect(desk.page.get_by_role("heading", name="Sign in")).to_be_visible()
