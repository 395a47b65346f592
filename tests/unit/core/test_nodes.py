"""The rules of nodes: what they are called, what state they are in, whose tokens hold, what a grant covers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stagecoach.core.errors import GrantExceeded, NodeNotFound, PathRefused, StagecoachError
from stagecoach.core.nodes import (
    CommandKind,
    CommandState,
    Grant,
    Node,
    NodeCommand,
    NodeState,
    checked_folder,
    covering_grant,
    node_id_of,
    system_name,
    troubles_of_check,
)

NOW = datetime(2030, 5, 17, 12, 0, 0, tzinfo=UTC)
ID = "01qecvkgg0spp95d0paycjkvmh"


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def a_node(**changes: object) -> Node:
    return replace(Node(ID, "alice", "archive", NOW, enrolment_expires_at=later(60)), **changes)  # type: ignore[arg-type]


def a_grant(**changes: object) -> Grant:
    return replace(Grant(ID, ID, "alice", NOW, grantee="bob"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "node_id"), [(f"node:{ID}", ID), ("node:", ""), ("alps", None), ("Node:x", None), ("", None)])
def test_a_nodes_name_as_a_system_names_it(name: str, node_id: str | None) -> None:
    assert node_id_of(name) == node_id
    if node_id is not None:
        assert system_name(node_id) == name


@pytest.mark.parametrize(
    ("node", "state"),
    [
        (a_node(), NodeState.WAITING),
        (a_node(enrolled_at=NOW, last_seen_at=later(-89)), NodeState.ONLINE),
        (a_node(enrolled_at=NOW, last_seen_at=later(-90)), NodeState.OFFLINE),
        (a_node(enrolled_at=NOW, last_seen_at=NOW, revoked_at=NOW), NodeState.REVOKED),
    ],
    ids=lambda value: str(getattr(value, "value", "")),
)
def test_the_state_is_told_by_the_last_word(node: Node, state: NodeState) -> None:
    assert node.state(NOW, 90) is state


@pytest.mark.parametrize(
    ("changes", "seconds", "instance", "may"),
    [
        ({}, 59, "first", True),
        ({}, 60, "first", False),
        ({"enrolment_expires_at": None}, 0, "first", False),
        ({"revoked_at": NOW}, 0, "first", False),
        ({"enrolment_used_at": NOW, "instance_id": "first"}, 599, "first", True),
        ({"enrolment_used_at": NOW, "instance_id": "first"}, 600, "first", False),
        ({"enrolment_used_at": NOW, "instance_id": "first"}, 1, "second", False),
    ],
)
def test_an_enrolment_token_holds_once_and_for_whose_answer_was_lost(
    changes: dict[str, object], seconds: float, instance: str, may: bool
) -> None:
    assert a_node(**changes).may_enrol(instance, later(seconds)) is may


def test_a_second_machine_is_told_of_for_a_day() -> None:
    node = a_node(health=("The disk is full.",), other_instance_at=NOW)
    told = node.told_health(later(10))
    assert "2030-05-17 12:00 UTC" in told[0]
    assert told[1:] == ["The disk is full."]
    assert node.told_health(later(24 * 3600)) == ["The disk is full."]


@pytest.mark.parametrize(
    ("state", "lease_until", "is_lost"),
    [
        (CommandState.RUNNING, later(1), False),
        (CommandState.RUNNING, NOW, True),
        (CommandState.DELIVERED, None, True),
        (CommandState.PENDING, NOW, False),
        (CommandState.DONE, NOW, False),
    ],
)
def test_a_command_is_lost_when_its_agent_is_silent(state: CommandState, lease_until: datetime | None, is_lost: bool) -> None:
    command = NodeCommand(ID, ID, 1, CommandKind.MOVE, "name", "alice", NOW, state=state, lease_until=lease_until)
    assert command.is_lost(NOW) is is_lost


@pytest.mark.parametrize(
    "grant",
    [a_grant(grantee=None), a_grant(revoked_at=NOW), a_grant(expires_at=NOW)],
    ids=["an invitation", "revoked", "expired"],
)
def test_a_grant_that_is_not_live_covers_nothing(grant: Grant) -> None:
    with pytest.raises(NodeNotFound):
        covering_grant([grant], "/x", 0, NOW)


@pytest.mark.parametrize(
    ("grant", "path", "size_bytes", "refusal"),
    [
        (a_grant(), "/anything/at all", 10**15, None),
        (a_grant(folder="/in"), "/in/x", 1, None),
        (a_grant(folder="/in"), "/in", 1, PathRefused),
        (a_grant(folder="/in"), "/inside/x", 1, PathRefused),
        (a_grant(folder="/in"), "/x", 1, PathRefused),
        (a_grant(max_bytes=10, used_bytes=6), "/x", 4, None),
        (a_grant(max_bytes=10, used_bytes=6), "/x", 5, GrantExceeded),
        (a_grant(max_bytes=10, used_bytes=12), "/x", 0, GrantExceeded),
    ],
)
def test_a_grant_covers_its_folder_and_its_bytes(
    grant: Grant, path: str, size_bytes: int, refusal: type[StagecoachError] | None
) -> None:
    if refusal is None:
        assert covering_grant([grant], path, size_bytes, NOW) is grant
        return
    with pytest.raises(refusal):
        covering_grant([grant], path, size_bytes, NOW)


def test_of_several_grants_the_first_that_covers_it_is_used_and_used_up_bytes_are_told_before_folders() -> None:
    used_up, other, good = a_grant(max_bytes=1, used_bytes=1), a_grant(folder="/other"), a_grant(folder="/in")
    assert covering_grant([used_up, other, good], "/in/x", 5, NOW) is good
    for grants in ([used_up, other], [other, used_up]):
        with pytest.raises(GrantExceeded):
            covering_grant(grants, "/in/x", 5, NOW)


@pytest.mark.parametrize(("folder", "plain"), [("/", "/"), ("/in/", "/in"), ("//a/./b", "/a/b")])
def test_a_folder_is_plain(folder: str, plain: str) -> None:
    assert checked_folder(folder) == plain


@pytest.mark.parametrize("folder", ["", "in", "/a/..", "/\0", "/" + "x" * 256])
def test_a_folder_that_leads_elsewhere_is_refused(folder: str) -> None:
    with pytest.raises(PathRefused):
        checked_folder(folder)


def found(*verdicts: object) -> dict[str, object]:
    return {"result": {"ways": {"service": {"verdicts": list(verdicts)}, "store": {"verdicts": list(verdicts)}}}}


def test_troubles_of_a_check_are_told_once_and_the_worst_first() -> None:
    warning, failure = {"level": "warning", "words": "Slow."}, {"level": "failure", "words": "Nobody\n answers."}
    advice = {"level": "advice", "words": "Raise it."}
    assert troubles_of_check(found(advice, warning, failure)) == ["Nobody  answers.", "Slow."]
    assert len(troubles_of_check(found(*({"level": "failure", "words": f"{n}" * 9000} for n in range(99))))) == 10
    assert len(troubles_of_check(found({"level": "failure", "words": "w" * 9000}))[0]) == 500


@pytest.mark.parametrize(
    "result",
    [
        None,
        {},
        {"result": None},
        {"result": {"ways": "x"}},
        {"result": {"ways": {"store": [1, 2]}}},
        {"result": {"ways": {"store": {"verdicts": {"a": 1}}}}},
        found(None, 1, {"level": ["failure"], "words": "x"}, {"level": "failure", "words": 3}, {"level": {}}),
    ],
)
def test_of_another_shape_nothing_is_told(result: dict[str, object] | None) -> None:
    assert troubles_of_check(result) == []
