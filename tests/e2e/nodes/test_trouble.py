"""Transfers to and from a node are cancelled, and go on whatever is killed around them."""

from __future__ import annotations

import os
import signal

import pytest
from tests.e2e.nodes.node import Node, nodes_up
from tests.e2e.testbed import Testbed, wait_until

MIB = 1024 * 1024
SIZE = 60 * MIB
SLOW_MBIT = 80.0  # some six seconds for it: a test is in the middle for long enough to act


@pytest.fixture
def slow(bobs: Node) -> Node:
    """Node b with a slow way out."""
    bobs.way_out(rate_mbit=SLOW_MBIT)
    return bobs


def staged_for(node: Node, name: str, content: bytes) -> str:
    """An upload whose bytes are in the store; its agent's turn."""
    (node.receive / name).unlink(missing_ok=True)
    return node.put(node.begin_upload(f"/{name}", len(content)), content)


def test_a_cancel_in_the_middle_leaves_the_old_file_and_nothing_else(testbed: Testbed, slow: Node) -> None:
    target = slow.receive / "cancelled.bin"
    transfer_id = staged_for(slow, target.name, os.urandom(SIZE))
    target.write_bytes(b"old")
    slow.wait_until_moving(transfer_id)
    assert slow.owner.http.delete(f"/transfers/{transfer_id}").status_code == 200
    transfer = slow.wait(transfer_id)
    assert transfer["state"] == "cancelled", transfer
    slow.wait_until_nothing_is_left(transfer)
    wait_until(lambda: not slow.movers(), 10, "no mover runs")
    assert slow.command(transfer_id)["state"] == "cancelled"
    assert target.read_bytes() == b"old"
    target.unlink()


def test_a_cancel_of_what_a_node_sends_leaves_nothing(slow: Node) -> None:
    source = slow.offer("cancelled-source.bin", os.urandom(SIZE))
    begun = slow.begin_download(f"/{source.name}")
    slow.wait_until_moving(begun["transferId"])
    assert slow.owner.http.delete(f"/transfers/{begun['transferId']}").status_code == 200
    transfer = slow.wait(begun["transferId"])
    assert transfer["state"] == "cancelled", transfer
    slow.wait_until_nothing_is_left(transfer)
    assert source.stat().st_size == SIZE
    source.unlink()


def test_an_agent_killed_while_it_fetches_goes_on(testbed: Testbed, slow: Node) -> None:
    content = os.urandom(SIZE)
    transfer_id = staged_for(slow, "killed.bin", content)
    slow.wait_until_moving(transfer_id)
    before = slow.way_out()["counts"]["bytes_received"]
    slow.kill_agent()
    slow.way_out(rate_mbit=0)
    nodes_up(testbed)
    transfer = slow.wait(transfer_id)
    assert transfer["state"] == "done", transfer
    assert (slow.receive / "killed.bin").read_bytes() == content
    # From where it was: what had come is not asked for again, but for the ranges under way.
    assert slow.way_out()["counts"]["bytes_received"] - before < SIZE + 40 * MIB
    slow.wait_until_nothing_is_left(transfer)


def test_an_agent_killed_with_its_mover_while_it_sends_goes_on(testbed: Testbed, slow: Node) -> None:
    content = os.urandom(SIZE)
    source = slow.offer("killed-source.bin", content)
    begun = slow.begin_download(f"/{source.name}")
    slow.wait_until_moving(begun["transferId"])
    for mover in slow.movers():
        os.kill(mover.pid, signal.SIGKILL)
    slow.kill_agent()
    slow.way_out(rate_mbit=0)
    nodes_up(testbed)
    assert slow.fetch_staged(begun) == content
    source.unlink()


def test_an_agent_that_is_asked_to_end_comes_back_to_its_work(testbed: Testbed, slow: Node) -> None:
    content = os.urandom(SIZE)
    transfer_id = staged_for(slow, "ended.bin", content)
    slow.wait_until_moving(transfer_id)
    os.kill(slow.agent_pid(), signal.SIGTERM)
    slow.way_out(rate_mbit=0)
    wait_until(lambda: not slow.agent_runs(), 30, "the agent has ended")
    nodes_up(testbed)
    transfer = slow.wait(transfer_id)
    assert transfer["state"] == "done", transfer
    assert (slow.receive / "ended.bin").read_bytes() == content


def test_a_service_that_starts_again_in_the_middle_finds_it_done(testbed: Testbed, slow: Node) -> None:
    content = os.urandom(SIZE)
    transfer_id = staged_for(slow, "restarted.bin", content)
    slow.wait_until_moving(transfer_id)
    for name in ("api", "worker"):
        os.kill(testbed.service_pid(name), signal.SIGKILL)
    testbed.start_service()
    transfer = slow.wait(transfer_id)
    assert transfer["state"] == "done", transfer
    assert (slow.receive / "restarted.bin").read_bytes() == content
    wait_until(lambda: slow.command(transfer_id)["state"] == "done", 90, "the agent has reported the end")


def test_a_node_without_network_goes_on_when_it_is_back(slow: Node) -> None:
    content = os.urandom(SIZE)
    transfer_id = staged_for(slow, "cut.bin", content)
    slow.wait_until_moving(transfer_id)
    slow.way_out(open=False, rate_mbit=0)
    refused = slow.way_out()["counts"]["connections"]
    wait_until(lambda: slow.way_out()["counts"]["connections"] > refused, 60, "the node tries in vain")
    slow.way_out(open=True)
    transfer = slow.wait(transfer_id)
    assert transfer["state"] == "done", transfer
    assert (slow.receive / "cut.bin").read_bytes() == content
