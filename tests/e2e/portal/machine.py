"""A machine that becomes a node: two directories, and the agent as its owner runs it, with the command of the page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


class Machine:
    """Its programs are those of this installation. ``log`` has what they said."""

    def __init__(self, directory: Path) -> None:
        self.send, self.receive = directory / "outgoing", directory / "incoming"
        for place in (self.send, self.receive):
            place.mkdir(parents=True)
        self.log = directory / "log"
        programs = f"{Path(sys.prefix, 'bin')}:{os.environ['PATH']}"
        self._environment = {"PATH": programs, "HOME": str(directory), "STAGECOACH_AGENT_STATE": str(directory / "state")}
        self._agent: subprocess.Popen[bytes] | None = None

    def type(self, command: str) -> str:
        """Into a shell; what it printed."""
        done = subprocess.run(
            ["/bin/sh"], input=command, env=self._environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """The agent runs from now on."""
        with self.log.open("ab") as log:
            self._agent = subprocess.Popen(["stagecoach", "agent", "run"], env=self._environment, stdout=log, stderr=log)

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
