"""A machine that becomes a node: two directories, and the agent as its owner runs it, with the command of the page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
from tests.e2e.own_service import free_port
from tests.e2e.testbed import wait_until

from stagecoach.portal.nodes import enrol_command


class Machine:
    """Its programs are those of this installation. ``log`` has what they said. ``receives``: others reach it directly."""

    def __init__(self, directory: Path, *, receives: bool = False) -> None:
        self.send, self.receive = directory / "outgoing", directory / "incoming"
        for place in (self.send, self.receive):
            place.mkdir(parents=True)
        self.log = directory / "log"
        programs = f"{Path(sys.prefix, 'bin')}:{os.environ['PATH']}"
        self._environment = {"PATH": programs, "HOME": str(directory), "STAGECOACH_AGENT_STATE": str(directory / "state")}
        self._receiver = ["--receiver", f"127.0.0.1:{free_port()}"] if receives else []
        self._agent: subprocess.Popen[bytes] | None = None

    def type(self, command: str) -> str:
        """Into a shell; what it printed."""
        done = subprocess.run(
            ["/bin/sh"], input=command, env=self._environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def enrol(self, said: dict[str, str], name: str) -> str:
        """As a node of whoever has the token, by the API instead of the page; its id. Its agent runs."""
        headers = {"Authorization": f"Bearer {said['token']}"}
        made = httpx.post(f"{said['url']}/nodes", json={"name": name}, headers=headers, timeout=60).raise_for_status().json()
        self.type(enrol_command(said["url"], made["enrolmentToken"], str(self.send), str(self.receive)))
        self.start()

        self.wait_until_heard(said, made["id"])
        return str(made["id"])

    def wait_until_heard(self, said: dict[str, str], node_id: str) -> None:
        """Its agent has told what it can, and where others reach it; whoever has enrolled counts as online before."""
        headers = {"Authorization": f"Bearer {said['token']}"}

        def has_told() -> bool:
            shown = httpx.get(f"{said['url']}/nodes/{node_id}", headers=headers, timeout=60).raise_for_status().json()
            return shown["state"] == "online" and shown["freeBytes"]["receive"] is not None

        wait_until(has_told, 120, f"the agent is heard: {self.log.read_text()}")

    def start(self) -> None:
        """The agent runs from now on."""
        with self.log.open("ab") as log:
            self._agent = subprocess.Popen(
                ["stagecoach", "agent", "run", *self._receiver], env=self._environment, stdout=log, stderr=log
            )

    def stop(self) -> int | None:
        """The agent's exit code; None where none runs."""
        if self._agent is None:
            return None
        self._agent.terminate()
        code = self._agent.wait(60)
        self._agent = None
        return code

    def wait_for_its_end(self) -> int:
        """Exit code of an agent that ends by itself."""
        assert self._agent is not None
        code = self._agent.wait(90)
        self._agent = None
        return code
