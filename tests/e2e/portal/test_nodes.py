"""Nodes as people use them: registered, run, sent to, shared and revoked, in Chromium and with the agent as it is shipped."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.e2e.portal.desk import LONG_MILLISECONDS, Desk
from tests.e2e.portal.machine import Machine
from tests.e2e.portal.test_upload import MEBIBYTE, random_file

from stagecoach.api.signing_keys import ensure_signing_key, sign_token
from stagecoach.settings import IssuerSettings

pytestmark = pytest.mark.timeout(420)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "machine")
    yield made
    made.stop()


@pytest.fixture
def bob(embedded: tuple[dict[str, str], Path]) -> str:
    """A token of another user of this service, whom its key has signed."""
    state = embedded[1].parent / "state"
    key = ensure_signing_key(state / "signing-key.json", state / "jwks.json")
    return sign_token(key, "bob", 3600, IssuerSettings(jwks=str(state / "jwks.json")))


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


def test_the_network_is_checked_and_told_in_words(desk: Desk, machine: Machine) -> None:
    make_node(desk, machine, "checked")
    desk.page.get_by_role("button", name="Check the network").click()
    expect(desk.page.locator("#told")).to_contain_text("is asked to check its network")
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
    with desk.neighbour(tmp_path / "bobs-profile") as guest:
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
    desk.page.locator(".menu summary").last.click()
    desk.page.get_by_role("button", name="Sign out").click()
    expect(desk.page.get_by_role("heading", name="Sign in")).to_be_visible()
    open_path(desk, node)
    expect(desk.page.get_by_role("heading", name="Sign in")).to_be_visible()
