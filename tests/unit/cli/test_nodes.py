"""Nodes on the command line: what is shown, what is asked of the service, and where secrets go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import Run
from tests.unit.client.fake_nodes import (
    ARCHIVE,
    COMMAND,
    ENROLMENT_TOKEN,
    GRANT,
    INVITATION_TOKEN,
    OTHER_SCOPE,
    SCOPE,
    command,
    held,
)
from tests.unit.client.fake_service import FakeService
from tests.unit.mover.faulty_store import PART, some_bytes

CONTENT = some_bytes(PART + 5)


def test_list_and_show(stagecoach: Run) -> None:
    listed = stagecoach("nodes", "list")
    assert listed.exit_code == 0, listed.output
    assert f"{ARCHIVE}  online  archive" in listed.stdout
    assert "2.0 GiB free  The send directory is not there." in listed.stdout
    assert json.loads(stagecoach("nodes", "list", "--json").stdout)["nodes"][0]["system"] == f"node:{ARCHIVE}"
    shown = stagecoach("nodes", "show", "archive")
    assert f"node:{ARCHIVE}" in shown.stdout
    assert "! The send directory is not there." in shown.stdout
    granted = stagecoach("nodes", "show", "scope", "--json")
    assert (json.loads(granted.stdout)["id"], json.loads(granted.stdout)["owner"]) == (SCOPE, "bob")


def test_a_node_that_nobody_knows(stagecoach: Run) -> None:
    for name in ("nonsense", "01hzy0000000000000000000zz"):
        refused = stagecoach("nodes", "show", name, "--json")
        assert refused.exit_code == 4
        assert json.loads(refused.stdout)["error"]["code"] == "node_not_found"


def test_ones_own_node_goes_before_others_and_others_must_differ(stagecoach: Run, service: FakeService) -> None:
    service.nodes.held = [held(SCOPE, "archive", "bob"), held(OTHER_SCOPE, "archive", "carol")]
    assert json.loads(stagecoach("nodes", "show", "archive", "--json").stdout)["id"] == ARCHIVE
    service.nodes.own = []
    refused = stagecoach("nodes", "show", "archive")
    assert refused.exit_code == 1
    assert f"{SCOPE} (bob), {OTHER_SCOPE} (carol)" in refused.stderr
    # Several grants of one node are no matter of doubt.
    service.nodes.held = [held(SCOPE, "archive", "bob"), held(SCOPE, "archive", "bob")]
    assert json.loads(stagecoach("nodes", "show", "archive", "--json").stdout)["id"] == SCOPE


def test_an_enrolment_token_is_shown_on_standard_output_alone(stagecoach: Run, service: FakeService) -> None:
    made = stagecoach("nodes", "register", "archive")
    assert made.exit_code == 0, made.output
    assert made.stdout == COMMAND + "\n"
    assert ENROLMENT_TOKEN not in made.stderr
    assert service.nodes.told == ("POST /nodes", {"name": "archive"})
    assert json.loads(stagecoach("nodes", "register", "archive", "--json").stdout)["enrolmentToken"] == ENROLMENT_TOKEN


def test_rename_and_revoke(stagecoach: Run, service: FakeService) -> None:
    renamed = stagecoach("nodes", "rename", "archive", "vault", "--json")
    assert json.loads(renamed.stdout)["name"] == "vault"
    assert service.nodes.told == (f"PATCH /nodes/{ARCHIVE}", {"name": "vault"})
    revoked = stagecoach("nodes", "revoke", "archive")
    assert f"{ARCHIVE}  revoked  archive" in revoked.stdout
    assert service.nodes.told == (f"DELETE /nodes/{ARCHIVE}", None)


def test_commands(stagecoach: Run) -> None:
    listed = stagecoach("nodes", "commands", ARCHIVE, "--state", "done", "--limit", "1")
    assert listed.exit_code == 0, listed.output
    assert "done  check_network  by alice" in listed.stdout
    assert "More: --after 3" in listed.stderr


def test_grants(stagecoach: Run, service: FakeService) -> None:
    listed = stagecoach("nodes", "grants", "list", "archive")
    assert f"{GRANT}  bob  /  0 B of no limit" in listed.stdout
    assert "(invitation, not redeemed)" in listed.stdout
    assert "a\\x1b[2Jguest" in listed.stdout
    assert f"{SCOPE}  scope of bob  /in  1.0 KiB of 2.0 KiB" in stagecoach("nodes", "grants", "list").stdout
    given = ("--folder", "/in", "--max-bytes", "2TB", "--expires", "2031-01-31", "--label", "a note")
    added = stagecoach("nodes", "grants", "add", "archive", "bob", *given, "--json")
    assert json.loads(added.stdout)["user"] == "bob"
    terms = {"folder": "/in", "maxBytes": 2 * 10**12, "expiresAt": "2031-01-31T00:00:00+00:00", "label": "a note"}
    assert service.nodes.told == (f"POST /nodes/{ARCHIVE}/grants", {"user": "bob", **terms})
    revoked = stagecoach("nodes", "grants", "revoke", "archive", GRANT, "--json")
    assert json.loads(revoked.stdout) == {"nodeId": ARCHIVE, "grantId": GRANT}
    assert service.nodes.told == (f"DELETE /nodes/{ARCHIVE}/grants/{GRANT}", None)


@pytest.mark.parametrize("terms", [("--max-bytes", "much"), ("--max-bytes", "1.5T"), ("--expires", "tomorrow")])
def test_terms_that_say_nothing(stagecoach: Run, service: FakeService, terms: tuple[str, str]) -> None:
    assert stagecoach("nodes", "grants", "add", "archive", "bob", *terms).exit_code == 2
    assert stagecoach("nodes", "invite", "archive", *terms).exit_code == 2
    assert service.asked == []


def test_an_invitation_is_shown_on_standard_output_alone(stagecoach: Run, service: FakeService) -> None:
    made = stagecoach("nodes", "invite", "archive", "--max-bytes", "1 KiB")
    assert made.exit_code == 0, made.output
    assert made.stdout == f"https://transfer.example.org/invitation#{INVITATION_TOKEN}\n"
    assert INVITATION_TOKEN not in made.stderr
    assert service.nodes.told is not None
    assert service.nodes.told[1]["maxBytes"] == 1024


@pytest.mark.parametrize("given", [INVITATION_TOKEN, f"https://transfer.example.org/invitation#{INVITATION_TOKEN}", "-"])
def test_redeem(stagecoach: Run, service: FakeService, given: str) -> None:
    redeemed = stagecoach("invitations", "redeem", given, input=INVITATION_TOKEN + "\n")
    assert redeemed.exit_code == 0, redeemed.output
    assert "scope of bob" in redeemed.stdout
    assert f"stagecoach cp FILE node:{SCOPE}:/in/" in redeemed.stderr
    assert service.nodes.told == ("POST /invitations/redeem", {"token": INVITATION_TOKEN})
    assert stagecoach("invitations", "redeem", "-", input="").exit_code == 2


@pytest.mark.parametrize("name", ["archive", ARCHIVE, "scope"])
def test_cp_to_a_node_and_back(stagecoach: Run, service: FakeService, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    system = f"node:{SCOPE if name == 'scope' else ARCHIVE}"
    up = stagecoach("cp", str(tmp_path / "a.bin"), f"node:{name}:/in/")
    assert up.exit_code == 0, up.output
    assert service.begun_with["path"] == "/in/a.bin"
    assert f"POST /filesystem/{system}/transfer/upload" in service.asked
    down = stagecoach("cp", f"node:{name}:/in/a.bin", str(tmp_path / "back"))
    assert down.exit_code == 0, down.output
    assert (tmp_path / "back").read_bytes() == CONTENT
    assert f"POST /filesystem/{system}/transfer/download" in service.asked


def test_cp_to_a_node_that_nobody_knows_begins_nothing(stagecoach: Run, service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    refused = stagecoach("cp", str(tmp_path / "a.bin"), "node:nonsense:/in/")
    assert refused.exit_code == 4
    assert service.asked == ["GET /nodes", "GET /grants"]


def way(*verdicts: tuple[str, str]) -> dict[str, Any]:
    found = [{"code": "x", "level": level, "words": words} for level, words in verdicts]
    return {"host": "store.example.org", "port": 443, "reachable": True, "verdicts": found}


def checked(state: str = "done", **ways: dict[str, Any]) -> dict[str, Any]:
    return command(state, endedAt="2030-01-01T00:00:00Z", result={"ways": ways, "free_bytes": {"receive": 1024, "send": None}})


def test_check_waits_for_the_node_and_says_what_it_found(stagecoach: Run, service: FakeService) -> None:
    good = checked(service=way(("advice", "Raise it."), ("good", "It is reached.")), store=way(("advice", "Raise it.")))
    service.nodes.commands = [command("pending"), command("running"), good]
    done = stagecoach("nodes", "check", "archive")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "service  store.example.org port 443",
        "  ✓ It is reached.",
        "  · Raise it.",
        "store  store.example.org port 443",
        "receive  1.0 KiB free",
        "send  free space not known",
    ]
    assert service.nodes.told == (f"POST /nodes/{ARCHIVE}/commands", {"kind": "check_network"})


def test_check_fails_where_something_does_not_work(stagecoach: Run, service: FakeService) -> None:
    bad = checked(
        service=way(("good", "It is reached.")), store=way(("failure", "Nobody\x1b[2J answers."), ("advice", "Raise it."))
    )
    service.nodes.commands = [bad]
    for arguments in (("nodes", "check", "archive"), ("nodes", "check", "archive", "--json")):
        assert stagecoach(*arguments).exit_code == 1
    assert "✗ Nobody\\x1b[2J answers." in stagecoach("nodes", "check", "archive").stdout
    service.nodes.commands = [command("failed", endedAt="2030-01-01T00:00:00Z", message="This agent does not know it.")]
    refused = stagecoach("nodes", "check", "archive")
    assert (refused.exit_code, refused.stderr) == (1, "This agent does not know it.\n")


def test_check_does_not_wait_for_ever(stagecoach: Run, service: FakeService) -> None:
    service.nodes.own[0]["state"] = "offline"
    service.nodes.commands = [command("pending")]
    waited = stagecoach("nodes", "check", "archive", "--wait", "5")
    assert waited.exit_code == 75
    assert "archive is offline; waiting for it." in waited.stderr
    assert "The check is pending" in waited.stderr


@pytest.mark.parametrize("result", [None, {}, {"ways": 3}, {"ways": {"store": [1]}}, {"ways": {"store": {"verdicts": [7]}}}])
def test_check_believes_no_shape_of_what_an_agent_says(stagecoach: Run, service: FakeService, result: Any) -> None:
    service.nodes.commands = [command(endedAt="2030-01-01T00:00:00Z", result=result)]
    assert stagecoach("nodes", "check", "archive").exit_code == 1
