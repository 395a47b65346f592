"""The testbed's two data transfer nodes, put right after whatever a test does to them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import testbed_of
from tests.e2e.nodes.node import Node, nodes_up
from tests.e2e.testbed import ENVIRONMENT_FILE, NODES_ENVIRONMENT_FILE, Testbed


@pytest.fixture(scope="session")
def testbed() -> Iterator[Testbed]:
    """The one that has nodes."""
    yield from testbed_of(NODES_ENVIRONMENT_FILE if NODES_ENVIRONMENT_FILE.exists() else ENVIRONMENT_FILE)


@pytest.fixture(scope="session")
def _nodes_of_testbed(testbed: Testbed) -> None:
    missing = testbed.environment.get("NODES_MISSING") or (
        "no node is registered" if not testbed.environment.get("NODE_A") else ""
    )
    if missing:
        if os.environ.get("STAGECOACH_REQUIRE_NODES") == "1":
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture
def alices(testbed: Testbed, _nodes_of_testbed: None) -> Iterator[Node]:
    """Node a. In the end its agent runs, its way out is open, and nothing hidden is in its directories."""
    yield from _put_right(testbed, Node(testbed, "a", testbed.alice))


@pytest.fixture
def bobs(testbed: Testbed, _nodes_of_testbed: None) -> Iterator[Node]:
    """Node b, likewise."""
    yield from _put_right(testbed, Node(testbed, "b", testbed.bob))


def _put_right(testbed: Testbed, node: Node) -> Iterator[Node]:
    try:
        yield node
        assert node.hidden_files() == []
    finally:
        node.way_out(open=True, rate_mbit=0)
        node.set_parallel(1)
        if not node.agent_runs():
            nodes_up(testbed)
