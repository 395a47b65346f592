"""The testbed's two node networks: what they reach, how bad the road between them is, and that nothing stays of them.

Most tests make networks of their own, under a root of their own, so that a bad road disturbs nobody.
"""

from __future__ import annotations

import functools
import http.server
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from deploy.testbed.wan import ADDRESSES
from tests.integration.node_networks import SCRIPTS, STORE_PORT, Networks, own_networks

REPOSITORY = Path(__file__).resolve().parents[2]
_FILES = [REPOSITORY / ".testbed" / name for name in ("nodes.env", "env")]
ENVIRONMENT_FILE = Path(os.environ.get("TESTBED_ENV") or next((file for file in _FILES if file.exists()), _FILES[-1]))
GOOD_ROAD = {"delay_ms": 0, "loss": 0, "rate_mbit": 0, "closed_ports": []}

# Run by Python inside a network, with its arguments; each says what it saw.
CONNECT = """
import socket, sys, time
times = []
for _ in range(int(sys.argv[3])):
    begun = time.monotonic()
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[4])):
        times.append(time.monotonic() - begun)
print(min(times))
"""
SEND = """
import socket, sys, time
size = int(sys.argv[3])
begun = time.monotonic()
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as road:
    road.sendall(bytes(size))
    road.shutdown(socket.SHUT_WR)
    assert road.recv(100) == b"through"
print(size * 8 / 1e6 / (time.monotonic() - begun))
"""
CALL_OUT = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as road:
    for _ in range(int(sys.argv[3])):
        road.sendto(b"hello", (sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        reason = "node networks are made by root, with Debian's iproute2"
        assert os.environ.get("STAGECOACH_REQUIRE_NODES") != "1", reason
        pytest.skip(reason)
    with own_networks() as made:
        yield made


@pytest.fixture
def good_road(networks: Networks) -> Iterator[Callable[..., None]]:
    """Makes the road worse by what is named; it is good before, and again afterwards."""
    networks.control("wan", **GOOD_ROAD)
    yield lambda **changes: networks.control("wan", **changes) and None
    networks.control("wan", **GOOD_ROAD)


@contextmanager
def letter_box(port: int, directory: Path) -> Iterator[None]:
    """Files over HTTP on this host's 127.0.0.1."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def fetch(networks: Networks, node: str, port: int) -> subprocess.CompletedProcess[str]:
    return networks.run("in-node", node, "curl", "-sS", "--max-time", "10", f"http://127.0.0.1:{port}/letter")


@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize("beside", [0, STORE_PORT], ids=["service", "store"])
def test_a_node_reaches_service_and_store_at_their_own_address(
    networks: Networks, node: str, beside: int, tmp_path: Path
) -> None:
    port = int(networks.variables["TESTBED_PORT_BASE"]) + beside
    content = secrets.token_hex(3_000_000)
    (tmp_path / "letter").write_text(content)
    with letter_box(port, tmp_path):
        assert fetch(networks, node, port).stdout == content


def test_a_node_reaches_nothing_else_of_this_host(networks: Networks, tmp_path: Path) -> None:
    port = int(networks.variables["TESTBED_PORT_BASE"]) + 1
    with letter_box(port, tmp_path):
        assert "refused" in networks.inside("a", CONNECT, "127.0.0.1", port, 1, 5).stderr.lower()
    assert "unreachable" in networks.inside("a", CONNECT, "192.0.2.1", 80, 1, 5).stderr.lower()


def test_nothing_leads_into_a_node(networks: Networks) -> None:
    """Its devices are its own loopback and the road to the other node, and for it nothing listens on this host."""
    for node in ("a", "b"):
        links = networks.run("in-node", node, "ip", "-br", "link").stdout.splitlines()
        assert sorted(line.split()[0] for line in links) == ["lo", "wan0"]
    listening = subprocess.run(["ss", "-Hlntup"], check=True, capture_output=True, text=True).stdout
    for name in ("wan", "outbound-a", "outbound-b"):
        assert f"pid={networks.pid(name)}," not in listening


def test_a_closed_way_out_cuts_what_is_connected_until_it_opens(networks: Networks, tmp_path: Path) -> None:
    port = int(networks.variables["TESTBED_PORT_BASE"])
    (tmp_path / "letter").write_text("good news")
    with letter_box(port, tmp_path):
        networks.control("outbound-a", open=False)
        try:
            assert fetch(networks, "a", port).returncode != 0
            assert fetch(networks, "b", port).stdout == "good news"
        finally:
            networks.control("outbound-a", open=True)
        assert fetch(networks, "a", port).stdout == "good news"


def test_the_way_out_keeps_its_rate(networks: Networks, tmp_path: Path) -> None:
    port = int(networks.variables["TESTBED_PORT_BASE"])
    (tmp_path / "letter").write_text("x" * 1_000_000)
    with letter_box(port, tmp_path):
        networks.control("outbound-b", rate_mbit=8)
        try:
            begun = time.monotonic()
            assert len(fetch(networks, "b", port).stdout) == 1_000_000
            assert time.monotonic() - begun > 0.9
        finally:
            networks.control("outbound-b", rate_mbit=0)


def test_a_round_trip_takes_twice_the_delay(networks: Networks, good_road: Callable[..., None]) -> None:
    with networks.listening("b", ADDRESSES[1], 8443):
        quick = float(networks.inside("a", CONNECT, ADDRESSES[1], 8443, 10, 5).stdout)
        good_road(delay_ms=40)
        slow = float(networks.inside("a", CONNECT, ADDRESSES[1], 8443, 10, 5).stdout)
    assert 0.08 <= slow < 0.08 + 0.04 + quick


def test_the_road_carries_about_its_rate_and_not_more(networks: Networks, good_road: Callable[..., None]) -> None:
    good_road(delay_ms=5, rate_mbit=40)
    with networks.listening("b", ADDRESSES[1], 8443):
        seen = max(float(networks.inside("a", SEND, ADDRESSES[1], 8443, 4_000_000).stdout) for _ in range(3))
    assert 25 < seen <= 40


def test_packets_get_lost_as_often_as_asked(networks: Networks, good_road: Callable[..., None]) -> None:
    good_road(loss=0.3)
    before = networks.control("wan")["counts"]["from_a"]
    assert networks.inside("a", CALL_OUT, ADDRESSES[1], 5000, 1000).returncode == 0
    after = networks.control("wan")["counts"]["from_a"]
    lost, passed = (after[name] - before[name] for name in ("lost", "packets"))
    assert lost + passed >= 1000
    assert 0.2 < lost / (lost + passed) < 0.4


def test_a_closed_port_is_silent_and_its_neighbour_open(networks: Networks, good_road: Callable[..., None]) -> None:
    good_road(closed_ports=[8443])
    with networks.listening("b", ADDRESSES[1], 8443), networks.listening("b", ADDRESSES[1], 8444):
        assert "timed out" in networks.inside("a", CONNECT, ADDRESSES[1], 8443, 1, 2).stderr
        assert networks.inside("a", CONNECT, ADDRESSES[1], 8444, 1, 5).returncode == 0
        good_road(closed_ports=[])
        assert networks.inside("a", CONNECT, ADDRESSES[1], 8443, 1, 5).returncode == 0


def test_a_senseless_setting_is_refused_and_changes_nothing(networks: Networks) -> None:
    before = networks.control("wan")["settings"]
    for wrong in ({"loss": 2}, {"delay": 25}, {"delay_ms": None}):
        with pytest.raises(ValueError):
            networks.control("wan", **wrong)
    assert networks.control("wan")["settings"] == before


@pytest.mark.parametrize(("node", "owner"), [("a", "alice"), ("b", "bob")])
def test_a_command_in_a_node_is_its_owners_and_has_no_power(networks: Networks, node: str, owner: str) -> None:
    assert networks.run("in-node", node, "id", "-un").stdout.strip() == owner
    status = networks.run("in-node", node, "cat", "/proc/self/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    own = Path(networks.published()[f"NODE_{node.upper()}_RECEIVE"])
    assert own.owner() == owner
    assert own.stat().st_mode & 0o777 == 0o700
    other = networks.published()[f"NODE_{'B' if node == 'a' else 'A'}_RECEIVE"]
    assert networks.run("in-node", node, "touch", f"{own}/mine").returncode == 0
    assert networks.run("in-node", node, "ls", other).returncode != 0
    assert networks.run("in-node", node, f"{sys.prefix}/bin/stagecoach", "--help").returncode == 0


def test_what_was_killed_comes_back_and_after_down_nothing_is_there() -> None:
    with own_networks() as networks:
        names = [networks.published()[f"NODE_NETWORK_{node}"] for node in "AB"]
        for name in ("wan", "outbound-a"):
            os.kill(networks.pid(name), signal.SIGKILL)
        networks.up()
        with networks.listening("b", ADDRESSES[1], 8443):
            assert networks.inside("a", CONNECT, ADDRESSES[1], 8443, 1, 5).returncode == 0
        assert networks.control("outbound-a")["settings"]["open"] is True

        # Even what hides: no mark, no parent, not recorded.
        hidden = networks.run(
            "in-node", "a", "env", "-i", "/bin/sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!", check=True
        )
        pids = [int(hidden.stdout), *(networks.pid(name) for name in ("wan", "outbound-a", "outbound-b"))]
        for name in ("wan", "outbound-b"):
            os.kill(networks.pid(name), signal.SIGKILL)
        networks.down()

        assert not [name for name in names if Path("/run/netns", name).exists()]
        assert not [pid for pid in pids if runs(pid)]
        assert not networks.root.exists()


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def test_without_the_device_the_testbed_says_so_or_fails_where_it_is_required(networks: Networks) -> None:
    def up(**variables: str) -> subprocess.CompletedProcess[str]:
        # Seen by this command alone: /dev without the device.
        hide = 'mount -t tmpfs tmpfs /dev/net && exec "$0"'
        return subprocess.run(
            ["unshare", "--mount", "bash", "-c", hide, SCRIPTS / "nodes-up"],
            env={**os.environ, **networks.variables, "STAGECOACH_REQUIRE_NODES": "", **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    try:
        without = up()
        assert without.returncode == 0
        assert "without nodes: /dev/net/tun is missing" in without.stderr
        assert networks.published() == {"NODES_MISSING": "/dev/net/tun is missing"}
        required = up(STAGECOACH_REQUIRE_NODES="1")
        assert required.returncode != 0
        assert "/dev/net/tun is missing" in required.stderr
    finally:
        networks.up()


@pytest.mark.parametrize("node", ["a", "b"])
def test_the_testbeds_nodes_reach_its_service_and_its_store(node: str) -> None:
    if not ENVIRONMENT_FILE.exists():
        reason = f"no testbed: {ENVIRONMENT_FILE} is absent (make testbed-up)"
        assert os.environ.get("STAGECOACH_REQUIRE_NODES") != "1", reason
        pytest.skip(reason)
    testbed = dict(line.split("=", 1) for line in shlex.split(ENVIRONMENT_FILE.read_text(encoding="utf-8")))
    if testbed.get("NODES_MISSING"):
        assert os.environ.get("STAGECOACH_REQUIRE_NODES") != "1", testbed["NODES_MISSING"]
        pytest.skip(testbed["NODES_MISSING"])
    networks = Networks(Path(testbed["TESTBED_ROOT"]), {"TESTBED_ROOT": testbed["TESTBED_ROOT"], "VENV": sys.prefix})

    for url in (testbed["STAGECOACH_URL"] + "/healthz", testbed["S3_ENDPOINT"] + "/"):
        ask = ["curl", "--noproxy", "*", "-s", "-i", "-o", "/dev/null", "-w", "%{http_code} %header{server}", url]
        outside = subprocess.run(ask, check=True, capture_output=True, text=True).stdout
        assert networks.run("in-node", node, *ask, check=True).stdout == outside
