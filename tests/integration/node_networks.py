"""Two node networks of a test's own: a small testbed beside the testbed, with nothing in it but these."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deploy.testbed.control import ask

SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "testbed"
STORE_PORT = 81  # beside the base, as layout.bash says

# Run by Python inside a network.
TAKE_ONE = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as door:
    print("listens", flush=True)
    while True:
        visitor, _ = door.accept()
        with visitor:
            while visitor.recv(1 << 20):
                pass
            visitor.sendall(b"through")
"""


@dataclass
class Networks:
    """The two of one testbed root."""

    root: Path
    variables: dict[str, str]

    def run(self, script: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        command = [SCRIPTS / script, *arguments]
        environment = {**os.environ, **self.variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **more)

    def up(self) -> None:
        for script in ("users-up", "nodes-up"):
            done = self.run(script)
            assert done.returncode == 0, done.stderr
        missing = self.published().get("NODES_MISSING")
        if missing:
            assert os.environ.get("STAGECOACH_REQUIRE_NODES") != "1", missing
            pytest.skip(missing)

    def down(self) -> None:
        done = self.run("down", "--wipe")
        assert done.returncode == 0, done.stderr

    def published(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in shlex.split((self.root / "published" / "nodes").read_text()))

    def pid(self, name: str) -> int:
        return int((self.root / "run" / f"{name}.pid").read_text())

    def control(self, name: str, **changes: Any) -> dict[str, Any]:
        return ask(self.root / "run" / f"{name}.socket", **changes)

    def inside(self, node: str, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self.run("in-node", node, "/usr/bin/python3", "-I", "-c", code, *map(str, arguments))

    @contextmanager
    def listening(self, node: str, address: str, port: int) -> Iterator[None]:
        """Something of the node takes connections and answers when all has come."""
        command = [SCRIPTS / "in-node", node, "/usr/bin/python3", "-I", "-c", TAKE_ONE, address, str(port)]
        with subprocess.Popen(command, env={**os.environ, **self.variables}, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == "listens\n"
                yield
            finally:
                process.kill()


def free_ports() -> int:
    """A base whose ports nobody has."""
    for base in range(28_000, 32_000, 200):
        with socket.socket() as service, socket.socket() as store:
            try:
                service.bind(("127.0.0.1", base))
                store.bind(("127.0.0.1", base + STORE_PORT))
            except OSError:
                continue
            return base
    raise AssertionError("no ports are free")


@contextmanager
def own_networks() -> Iterator[Networks]:
    root = Path(f"/var/lib/stagecoach-testbed-{secrets.token_hex(4)}")
    base = str(free_ports())
    variables = {"TESTBED_ROOT": str(root), "TESTBED_PORT_BASE": base, "TESTBED_ENV": f"{root}/env", "VENV": sys.prefix}
    networks = Networks(root, variables)
    try:
        networks.up()
        yield networks
    finally:
        networks.down()
