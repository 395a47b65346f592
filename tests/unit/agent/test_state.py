"""What an agent keeps: for its owner alone, whole or absent, and never where a transfer could reach it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tests.fakes.node_service import CREDENTIAL, TOKEN
from tests.unit.agent.conftest import World

from stagecoach.agent.errors import AlreadyRunning, CredentialRefused, DirectoryRefused, StateUnreadable
from stagecoach.agent.journal import CommandState, Ending, Journal, ProcessMark
from stagecoach.agent.state_directory import StateDirectory, require_directories
from stagecoach.wire.agent import Command


async def test_an_enrolment_is_kept_for_the_owner_alone(world: World) -> None:
    enrolment = await world.enrolled()
    assert world.state.enrolment() == enrolment
    assert (enrolment.node_id, enrolment.name, enrolment.credential) == ("n0de", "lab one", CREDENTIAL)
    assert {stat.S_IMODE(path.stat().st_mode) for path in world.state.path.glob("*.json")} == {0o600}
    assert stat.S_IMODE(world.state.path.stat().st_mode) == 0o700
    assert CREDENTIAL not in repr(enrolment)
    assert TOKEN not in (world.state.path / "agent.json").read_text()
    asked = world.service.enrolments[0]
    assert (asked.name, asked.instance_id) == ("box", enrolment.instance_id)


async def test_a_lost_answer_is_asked_for_again_by_the_same_instance(world: World) -> None:
    world.service.lost["enrol"] = 3
    await world.enrolled()
    assert len({one.instance_id for one in world.service.enrolments}) == 1
    assert len(world.service.enrolments) == 4


async def test_a_spent_token_is_refused_with_what_to_do(world: World) -> None:
    with pytest.raises(CredentialRefused, match="make a new one"):
        await world.enrolled("sce_another")
    assert world.state.enrolment() is None


def test_only_one_agent_has_a_state_directory(tmp_path: Path) -> None:
    first, second = StateDirectory(tmp_path / "state"), StateDirectory(tmp_path / "state")
    assert not second.is_in_use()
    with first.locked():
        assert second.is_in_use()
        with pytest.raises(AlreadyRunning, match="state directory"), second.locked():
            pass
    with second.locked():
        assert first.is_in_use()


def test_a_state_directory_that_others_could_read_is_closed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    StateDirectory(tmp_path / "state").prepare()
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_state_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryRefused, match="cannot be made"):
        StateDirectory(tmp_path / "file" / "state").prepare()


def test_state_and_data_are_never_inside_one_another(tmp_path: Path) -> None:
    for name in ("send", "receive", "send/state", "state/receive"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "send" / "state")
    send, receive = tmp_path / "send", tmp_path / "receive"
    assert require_directories(send, receive, tmp_path / "state2") == (str(send), str(receive))
    assert require_directories(send, send, tmp_path / "state2") == (str(send), str(send))
    for given in (
        (send, receive, send / "state"),
        (send, receive, receive),
        (send, receive, tmp_path / "link"),
        (send, tmp_path / "state" / "receive", tmp_path / "state"),
        (tmp_path, receive, tmp_path / "state"),
        (send, tmp_path / "absent", tmp_path / "state2"),
    ):
        with pytest.raises(DirectoryRefused):
            require_directories(*given)


@pytest.mark.parametrize("text", ["{", "[]", '{"server": "x"}'])
def test_a_spoiled_enrolment_is_no_missing_one(tmp_path: Path, text: str) -> None:
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    (state.path / "agent.json").write_text(text)
    with pytest.raises(StateUnreadable, match="enrol the node again"):
        state.enrolment()


def test_a_journal_knows_again_all_that_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: 7.0)
    for command_id in ("b", "a", "c"):
        journal.take(Command(id=command_id, kind="move", attempt=2, transfer_id="t", spec={"direction": "put"}))
    journal.change("a", state=CommandState.RUNNING, process=ProcessMark(12, "boot/34"))
    journal.change("c", state=CommandState.ENDED, ending=Ending(75, "interrupted", "words"))
    again = Journal(tmp_path, lambda: 8.0)
    assert list(again) == list(journal)
    assert [entry.id for entry in again] == ["b", "a", "c"]
    assert again.get("a") == journal.get("a") is not None
    again.forget("b")
    assert [entry.id for entry in Journal(tmp_path, lambda: 8.0)] == ["a", "c"]
    assert again.take(Command(id="d", kind="move", attempt=1, spec={})).number == 4


def test_a_journal_of_another_version_is_not_overlooked(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"id": "x", "process": null, "ending": null, "state": "unheard of"}')
    with pytest.raises(StateUnreadable, match="move it away"):
        Journal(tmp_path, lambda: 7.0)
