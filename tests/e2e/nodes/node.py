"""A data transfer node of the testbed: its directories, its agent, its way out, and transfers to it and from it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from deploy.testbed.control import ask
from tests.e2e.chaos.victims import Process, processes
from tests.e2e.testbed import REPOSITORY, Person, Testbed, wait_until

LONG_SECONDS = 180.0


def nodes_up(testbed: Testbed) -> None:
    """Starts what of the nodes does not run, and waits until both are online."""
    environment = {**os.environ, "VENV": sys.prefix, "TESTBED_ROOT": testbed.environment["TESTBED_ROOT"]}
    done = subprocess.run(
        [REPOSITORY / "deploy" / "testbed" / "nodes-up"], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


class Node:
    """As its owner uses it, and as root sees it from outside."""

    def __init__(self, testbed: Testbed, side: str, owner: Person) -> None:
        environment = testbed.environment
        self.testbed, self.side, self.owner = testbed, side, owner
        self.id = environment[f"NODE_{side.upper()}"]
        self.system = f"node:{self.id}"
        self.send = Path(environment[f"NODE_{side.upper()}_SEND"])
        self.receive = Path(environment[f"NODE_{side.upper()}_RECEIVE"])
        self.state = self.send.parent / "state"

    # --- through the service

    def begin_upload(self, path: str, size: int, **more: Any) -> dict[str, Any]:
        answer = self.testbed.begin_upload(self.owner, path, size, self.system, **more)
        assert answer.status_code == 201, answer.text
        begun: dict[str, Any] = answer.json()
        return begun

    def put(self, begun: dict[str, Any], content: bytes) -> str:
        """All parts, and completed; the transfer's id."""
        self.testbed.complete(begun, self.testbed.put_parts(begun, content))
        transfer_id: str = begun["transferId"]
        return transfer_id

    def begin_download(self, path: str, **more: Any) -> dict[str, Any]:
        body = {"path": path, "transferDirectives": {"transferMethod": "s3"}, **more}
        answer = self.owner.http.post(f"/filesystem/{self.system}/transfer/download", json=body)
        assert answer.status_code == 201, answer.text
        begun: dict[str, Any] = answer.json()
        return begun

    def wait(self, transfer_id: str, *states: str) -> dict[str, Any]:
        return self.testbed.wait(self.owner, transfer_id, *states, seconds=LONG_SECONDS)

    def fetch_staged(self, begun: dict[str, Any]) -> bytes:
        """What a download staged; finished, and nothing of it left."""
        staged = self.wait(begun["transferId"], "staged")
        assert staged["state"] == "staged", staged
        answer = httpx.get(begun["transferDirectives"]["downloadUrl"], timeout=120)
        assert answer.status_code == 200, answer.text
        assert self.owner.http.post(f"/transfers/{staged['id']}/finish").json()["state"] == "done"
        self.wait_until_nothing_is_left(staged)
        return answer.content

    def command(self, transfer_id: str) -> dict[str, Any]:
        """Of the queue, the one of a transfer."""
        answer = self.owner.http.get(f"/nodes/{self.id}/commands", params={"limit": 500})
        assert answer.status_code == 200, answer.text
        return next(command for command in answer.json()["commands"] if command["transferId"] == transfer_id)

    def set_parallel(self, count: int) -> None:
        """How many commands it carries out at once."""
        assert self.owner.http.patch(f"/nodes/{self.id}", json={"parallel": count}).status_code == 200

    # --- on its disk

    def offer(self, name: str, content: bytes) -> Path:
        """A file of the owner's in the send directory."""
        path = self.send / name
        path.write_bytes(content)
        os.chown(path, self.owner.uid, self.owner.uid)
        return path

    def hidden_files(self) -> list[str]:
        """What transfers write before they are done."""
        found = [path for top in (self.receive, self.send) for path in top.rglob(".stagecoach*")]
        return sorted(map(str, found))

    def wait_until_nothing_is_left(self, transfer: dict[str, Any]) -> None:
        """In the store, on the node's disk and in the agent's state."""

        def left() -> list[Any]:
            moves = [str(path) for path in (self.state / "moves").glob(f"*{transfer['id']}*")]
            return [*self.testbed.leftovers(self.owner, transfer).items(), *self.hidden_files(), *moves]

        wait_until(lambda: not left(), 60, f"nothing is left of {transfer['id']}")

    def wait_until_moving(self, transfer_id: str) -> int:
        """Bytes have come, and not all: those that were counted."""

        def look() -> int:
            shown = self.testbed.show(self.owner, transfer_id)
            over = {"done", "failed", "staged"} if shown["direction"] == "download" else {"done", "failed"}
            assert shown["state"] not in over, shown
            return int(shown["bytesMoved"] or 0) if shown["state"] == "moving" else 0

        return wait_until(look, LONG_SECONDS, f"{transfer_id} is moving", pause=0.05)

    # --- its agent

    def way_out(self, **changes: Any) -> dict[str, Any]:
        return ask(self.testbed.environment[f"OUTBOUND_CONTROL_{self.side.upper()}"], **changes)

    def agent_pid(self) -> int:
        return int(Path(self.testbed.environment["TESTBED_ROOT"], "run", f"stagecoach-agent-{self.side}.pid").read_text())

    def movers(self) -> list[Process]:
        """Processes of the agent's that carry out moves."""
        agent = self.agent_pid()
        return [process for process in processes().values() if process.parent == agent and process.name != "rclone"]

    def rclones(self, what: str) -> list[int]:
        """Of the agent's: ``rcd`` sends, ``serve`` is the receiver."""
        agent, found = self.agent_pid(), []
        for process in processes().values():
            if process.parent == agent and process.name == "rclone":
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
                    found += [process.pid] if words[1] == what.encode() else []
        return found

    def kill_agent(self) -> None:
        """With SIGKILL, and only the agent."""
        pid = self.agent_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in processes(), 10, "the agent is gone")

    def agent_runs(self) -> bool:
        return self.agent_pid() in processes()
