"""The agent as it runs on a node: a process of its own, a real store behind signed URLs, and a service that fails."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.node_service import CREDENTIAL, TOKEN, NodeService, QueuedCommand, until
from tests.integration.test_mover_on_rclone import PART, Store, rclone

from stagecoach.agent.processes import is_alive, mark_of

pytestmark = [pytest.mark.skipif(rclone() is None, reason="rclone is not installed"), pytest.mark.timeout(180)]
SIZE = 6 * PART + 7
FETCH, PUT = "01fetch0000000000000000000", "01put000000000000000000000"


class Gate:
    """The road to the store. Lets ``room`` bytes of answers (fetch) or requests (put) through, then holds until it is opened."""

    def __init__(self, store_port: int) -> None:
        self._store_port = store_port
        self._open = threading.Condition()
        self.room: float = float("inf")
        self.passed = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_after(self, size_bytes: int) -> None:
        with self._open:
            self.room = self.passed + size_bytes

    def open(self) -> None:
        with self._open:
            self.room = float("inf")
            self._open.notify_all()

    def is_holding(self) -> bool:
        return self.passed >= self.room

    def close(self) -> None:
        self.open()
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._store_port))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                with self._open:
                    # Words pass, bytes of the file wait.
                    self._open.wait_for(lambda: len(data) < 16384 or self.passed < self.room)
                    self.passed += len(data) if len(data) >= 16384 else 0
                other.sendall(data)
        for side in (one, other):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


class Node:
    """A machine with two directories, a state directory, and the program."""

    def __init__(self, folder: Path) -> None:
        self.send, self.receive, self.state = folder / "send", folder / "receive", folder / "state"
        self.send.mkdir()
        self.receive.mkdir()
        self.log = folder / "log"
        self.running: list[subprocess.Popen[bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.state.parent), "STAGECOACH_AGENT_STATE": str(self.state), **more}

    def call(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stagecoach", "agent", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment(**more))

    def enrol(self, server: str) -> None:
        given = ("--server", server, "--token", "-", "--send", str(self.send), "--receive", str(self.receive))
        command = [sys.executable, "-m", "stagecoach", "agent", "enrol", *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment(), input=TOKEN + "\n")
        assert done.returncode == 0, done.stderr
        assert "lab one" in done.stdout
        assert TOKEN not in done.stdout + done.stderr

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "stagecoach", "agent", "run"]
            process = subprocess.Popen(command, stderr=log, stdout=log, env=self.environment(**more))
        self.running.append(process)
        return process

    def entry(self, command_id: str) -> dict[str, Any]:
        path = self.state / "commands" / f"{command_id}.json"
        with contextlib.suppress(FileNotFoundError):
            document: dict[str, Any] = json.loads(path.read_text())
            return document
        return {}

    def mover_pid(self, command_id: str) -> int:
        until(lambda: self.entry(command_id).get("process"))
        pid: int = self.entry(command_id)["process"]["pid"]
        return pid

    def hidden(self) -> list[str]:
        return [path.name for path in self.receive.rglob(".stagecoach*")]

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()
        for path in (self.state / "commands").glob("*.json"):
            if process_of := json.loads(path.read_text()).get("process"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process_of["pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def real_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("store")
    (folder / "bucket").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(rclone()), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--dir-cache-time", "0s", str(folder)]
    environment = {**os.environ, "RCLONE_AUTH_KEY": '"testtesttest,secretsecretsecret"', "RCLONE_CONFIG": "/dev/null"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield folder, port
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def gate(real_store: tuple[Path, int]) -> Iterator[Gate]:
    gate = Gate(real_store[1])
    yield gate
    gate.close()


@pytest.fixture
def store(real_store: tuple[Path, int], gate: Gate) -> Store:
    """Whose URLs lead through the gate."""
    return Store(real_store[0], gate.port)


@pytest.fixture
def service() -> NodeService:
    return NodeService()


@pytest.fixture
def server(service: NodeService) -> Iterator[str]:
    with service.serving() as address:
        yield address


@pytest.fixture
def node(tmp_path: Path, server: str) -> Iterator[Node]:
    node = Node(tmp_path)
    node.enrol(server)
    yield node
    node.end()


def ticket_url(store: Store, kind: str, path: str, size: int, transfer_id: str, **more: Any) -> str:
    ticket = store.ticket(kind, f"{transfer_id}-data", path.encode(), size)
    ticket |= {"transfer_id": transfer_id, "place": {"fetch": "receive", "put": "send"}[kind], "concurrency": 1, **more}
    store.client.put_object(Bucket="bucket", Key=f"{transfer_id}-ticket", Body=json.dumps(ticket).encode())
    return store.sign("get_object", f"{transfer_id}-ticket")


def queue_fetch(service: NodeService, store: Store, transfer_id: str = FETCH, command_id: str | None = None) -> QueuedCommand:
    data = random.Random(transfer_id).randbytes(SIZE)
    (store.folder / "bucket" / f"{transfer_id}-data").write_bytes(data)
    url = lambda: ticket_url(store, "fetch", "/run1/data.bin", SIZE, transfer_id)  # noqa: E731
    return service.queue(command_id or transfer_id, spec={"direction": "fetch"}, transfer_id=transfer_id, ticket_url=url)


def queue_put(service: NodeService, store: Store, node: Node) -> QueuedCommand:
    (node.send / "run2").mkdir()
    (node.send / "run2" / "data.bin").write_bytes(random.Random(2).randbytes(SIZE))
    url = lambda: ticket_url(store, "put", "/run2/data.bin", 20 * PART, PUT, size_bytes=None)  # noqa: E731
    return service.queue(PUT, spec={"direction": "put"}, transfer_id=PUT, ticket_url=url)


def arrived(node: Node, transfer_id: str = FETCH) -> bool:
    return (node.receive / "run1" / "data.bin").read_bytes() == random.Random(transfer_id).randbytes(SIZE)


def receipt(store: Store) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((store.folder / "bucket" / "receipt").read_text())
    return document


def in_the_middle(gate: Gate, node: Node, command: QueuedCommand) -> int:
    """The mover's pid, with some parts in its journal and the next one held."""
    until(gate.is_holding)
    journal = node.state / "moves" / str(command.transfer_id) / "journal.json"
    until(lambda: journal.exists() and json.loads(journal.read_text())["parts"])
    return node.mover_pid(command.id)


def test_a_fetch_and_a_put_arrive_byte_for_byte(service: NodeService, store: Store, node: Node) -> None:
    fetch, put = queue_fetch(service, store), queue_put(service, store, node)
    agent = node.start()
    until(lambda: fetch.ends and put.ends)
    assert (fetch.ending.exit_code, fetch.ending.code) == (put.ending.exit_code, put.ending.code) == (0, None)
    assert arrived(node)
    assert (store.folder / "bucket" / f"{PUT}-data").read_bytes() == random.Random(2).randbytes(SIZE)
    assert [one.attempt for one in fetch.starts] == [1]
    assert node.hidden() == []
    until(lambda: not list((node.state / "moves").iterdir()))
    poll = service.polls[-1]
    assert poll.free_bytes.receive is not None
    assert poll.health == []
    shown = node.call("status", "--json")
    assert (shown.returncode, json.loads(shown.stdout)["running"]) == (0, True), shown.stdout
    agent.terminate()
    assert agent.wait(30) == 0
    assert node.call("status").returncode == 1


def test_no_secret_is_in_the_log_or_in_what_others_see_of_the_processes(
    service: NodeService, store: Store, gate: Gate, node: Node
) -> None:
    gate.hold_after(2 * PART)
    command = queue_fetch(service, store)
    agent = node.start(STAGECOACH_ENROLMENT_TOKEN="")
    mover = in_the_middle(gate, node, command)
    seen = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (agent.pid, mover))
    assert b"stagecoach_mover.py" in seen
    environment = Path(f"/proc/{mover}/environ").read_bytes()
    gate.open()
    until(lambda: command.ends)
    for text in (seen, environment, node.log.read_bytes(), (node.state / "status.json").read_bytes()):
        assert b"X-Amz" not in text
        assert CREDENTIAL.encode() not in text
        assert TOKEN.encode() not in text
    assert {path.stat().st_mode & 0o077 for path in [node.state, *node.state.rglob("*.json")]} == {0}


@pytest.mark.parametrize("both", [False, True], ids=["the agent", "agent and mover"])
def test_a_killed_agent_goes_on_from_the_movers_journal(
    service: NodeService, store: Store, gate: Gate, node: Node, both: bool
) -> None:
    gate.hold_after(3 * PART)
    command = queue_fetch(service, store)
    agent = node.start()
    mover = in_the_middle(gate, node, command)
    mark = mark_of(mover)
    assert mark is not None
    agent.kill()
    agent.wait()
    if both:
        os.killpg(mover, signal.SIGKILL)
    assert node.call("status").returncode == 1
    node.start()
    until(lambda: not is_alive(mark))
    gate.open()
    until(lambda: command.ends)
    assert command.ending.code is None
    assert arrived(node)
    assert receipt(store)["bytes_resumed"] >= PART
    assert receipt(store)["bytes_moved"] + receipt(store)["bytes_resumed"] == SIZE
    assert node.hidden() == []


def test_a_killed_put_sends_no_part_of_its_journal_again(service: NodeService, store: Store, gate: Gate, node: Node) -> None:
    gate.hold_after(3 * PART)
    command = queue_put(service, store, node)
    agent = node.start()
    mover = in_the_middle(gate, node, command)
    agent.kill()
    os.killpg(mover, signal.SIGKILL)
    agent.wait()
    gate.open()
    node.start()
    until(lambda: command.ends)
    assert command.ending.code is None
    assert (store.folder / "bucket" / f"{PUT}-data").read_bytes() == random.Random(2).randbytes(SIZE)
    assert receipt(store)["bytes_resumed"] >= PART


def test_sigterm_ends_the_mover_and_keeps_its_journal(service: NodeService, store: Store, gate: Gate, node: Node) -> None:
    gate.hold_after(3 * PART)
    command = queue_fetch(service, store)
    agent = node.start()
    mark = mark_of(in_the_middle(gate, node, command))
    assert mark is not None
    agent.terminate()
    assert agent.wait(40) == 0
    assert not is_alive(mark)
    assert node.entry(command.id)["state"] == "taken"
    assert not command.ends
    gate.open()
    node.start()
    until(lambda: command.ends)
    assert command.ending.code is None
    assert arrived(node)
    assert receipt(store)["bytes_moved"] + receipt(store)["bytes_resumed"] == SIZE
    assert receipt(store)["bytes_resumed"] >= PART


def test_cancel_stops_the_mover_and_leaves_nothing(service: NodeService, store: Store, gate: Gate, node: Node) -> None:
    gate.hold_after(2 * PART)
    command = queue_fetch(service, store)
    node.start()
    mark = mark_of(in_the_middle(gate, node, command))
    assert mark is not None
    assert node.hidden()
    command.cancel_asked = True
    until(lambda: command.ends)
    assert (command.ending.code, command.ending.exit_code) == ("cancelled", 143)
    assert not is_alive(mark)
    assert node.hidden() == []
    assert list((node.state / "moves").iterdir()) == []
    gate.open()
    after = queue_fetch(service, store, "01after0000000000000000000")
    until(lambda: after.ends)
    assert after.ending.code is None


def test_what_the_service_no_longer_knows_is_stopped_and_removed(
    service: NodeService, store: Store, gate: Gate, node: Node
) -> None:
    gate.hold_after(2 * PART)
    command = queue_fetch(service, store)
    node.start()
    mark = mark_of(in_the_middle(gate, node, command))
    service.unknown.add(command.id)
    until(lambda: mark is not None and not is_alive(mark))
    until(lambda: not node.entry(command.id) and not node.hidden())
    until(lambda: not list((node.state / "moves").iterdir()))
    assert not command.ends


def test_a_revoked_node_ends_with_a_clear_word_and_without_its_movers(
    service: NodeService, store: Store, gate: Gate, node: Node
) -> None:
    gate.hold_after(2 * PART)
    command = queue_fetch(service, store)
    agent = node.start()
    mark = mark_of(in_the_middle(gate, node, command))
    assert mark is not None
    service.is_revoked = True
    assert agent.wait(60) == 3
    assert not is_alive(mark)
    assert "The node was revoked. Nothing more is moved." in node.log.read_text()


def test_of_two_agents_with_one_state_directory_the_second_refuses(service: NodeService, node: Node) -> None:
    node.start()
    until(lambda: service.polls)
    second = node.call("run")
    assert second.returncode == 1
    assert "Another agent is running with the state directory" in second.stderr
    enrolling = node.call("enrol", "--server", "http://127.0.0.1:1", "--token", "x", "--send", "/", "--receive", "/")
    assert (enrolling.returncode, "Another agent" in enrolling.stderr) == (1, True)


def test_a_service_that_is_away_for_a_while_costs_nothing(service: NodeService, store: Store, gate: Gate, node: Node) -> None:
    gate.hold_after(2 * PART)
    command = queue_fetch(service, store)
    agent = node.start()
    in_the_middle(gate, node, command)
    service.is_away = True
    until(lambda: service.refused)
    gate.open()
    until(lambda: node.entry(command.id)["state"] == "ended")
    assert arrived(node)
    until(lambda: service.refused > 2)
    assert agent.poll() is None
    assert not command.ends
    service.is_away = False
    until(lambda: command.ends)
    assert command.ending.code is None
    until(lambda: node.entry(command.id)["state"] == "acknowledged")


def test_an_end_whose_acknowledgement_was_lost_is_told_again_also_by_the_next_agent(
    service: NodeService, store: Store, node: Node
) -> None:
    service.lost["ended"] = 1000
    command = queue_fetch(service, store)
    agent = node.start()
    until(lambda: len(command.ends) > 1)
    agent.kill()
    agent.wait()
    told = len(command.ends)
    service.lost["ended"] = 0
    node.start()
    until(lambda: len(command.ends) > told)
    until(lambda: node.entry(command.id)["state"] == "acknowledged")
    assert {one.model_dump_json() for one in command.ends} == {command.ending.model_dump_json()}
    assert [one.attempt for one in command.starts] == [1]


def test_another_command_for_the_same_transfer_goes_on_where_the_first_failed(
    service: NodeService, store: Store, gate: Gate, node: Node
) -> None:
    gate.hold_after(3 * PART)
    first = queue_fetch(service, store)
    node.start()
    os.killpg(in_the_middle(gate, node, first), signal.SIGTERM)
    until(lambda: first.ends)
    assert (first.ending.code, first.ending.exit_code) == ("interrupted", 75)
    gate.open()
    second = queue_fetch(service, store, FETCH, "01again0000000000000000000")
    until(lambda: second.ends)
    assert second.ending.code is None
    assert receipt(store)["bytes_resumed"] >= PART
    assert arrived(node)


def test_a_container_enrols_itself_once_and_anew_with_a_new_token(service: NodeService, server: str, tmp_path: Path) -> None:
    node = Node(tmp_path)
    given = {"STAGECOACH_URL": server, "STAGECOACH_AGENT_SEND": str(node.send), "STAGECOACH_AGENT_RECEIVE": str(node.receive)}
    try:
        bare = node.call("run")
        assert (bare.returncode, "There is no credential" in bare.stderr) == (3, True)
        for _ in range(2):
            process = node.start(STAGECOACH_ENROLMENT_TOKEN=TOKEN, **given)
            until(lambda: service.polls)
            process.terminate()
            assert process.wait(30) == 0
            service.polls.clear()
        assert len(service.enrolments) == 1
        spent = node.call("run", STAGECOACH_ENROLMENT_TOKEN="another", **given)
        assert (spent.returncode, "A token works once" in spent.stderr) == (3, True)
    finally:
        node.end()


def test_an_enrolment_whose_answer_was_lost_is_repeated_by_the_same_instance(
    service: NodeService, server: str, tmp_path: Path
) -> None:
    service.lost["enrol"] = 1
    node = Node(tmp_path)
    node.enrol(server)
    assert len(service.enrolments) == 2
    assert len({one.instance_id for one in service.enrolments}) == 1
