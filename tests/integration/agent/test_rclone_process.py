"""The agent's own rclone: whose settings it has, who can ask it, and that it neither stays away nor stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.integration.agent.conftest import HOST, until

from stagecoach.agent.rclone_process import RcloneProcess
from stagecoach.core.errors import CommandFailed, RcloneUnavailable


def alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def environment_of(pid: int) -> dict[str, str]:
    said = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(variable.partition("=")[::2] for variable in said.split("\0") if variable)


def listening_ports(pid: int) -> set[tuple[str, int]]:
    """Address (as in /proc) and port of each."""
    sockets = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                address, _, port = words[1].partition(":")
                found.add((address, int(port, 16)))
    return found


async def test_it_is_the_agents_own_and_no_word_of_the_users(tmp_path: Path, send: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / ".config" / "rclone").mkdir(parents=True)
    (tmp_path / "home" / ".config" / "rclone" / "rclone.conf").write_text("[mine]\ntype = local\n")
    for name, value in {
        "HOME": str(tmp_path / "home"),
        "RCLONE_RC_ADDR": "0.0.0.0:0",
        "RCLONE_RC_NO_AUTH": "true",
        "RCLONE_DRY_RUN": "true",
        "RCLONE_CONFIG": str(tmp_path / "home" / ".config" / "rclone" / "rclone.conf"),
        "AWS_ACCESS_KEY_ID": "the-users",
    }.items():
        monkeypatch.setenv(name, value)
    async with RcloneProcess(tmp_path / "state", roots=[send]) as rclone:
        pid = rclone.pid
        assert pid is not None
        has = environment_of(pid)
        password = has["RCLONE_RC_PASS"]
        assert {name for name in has if name.startswith(("RCLONE_", "AWS_"))} == {
            "RCLONE_CACHE_DIR",
            "RCLONE_CONFIG",
            "RCLONE_RC_PASS",
            "RCLONE_RC_USER",
        }
        assert has["RCLONE_CONFIG"] == os.devnull
        assert len(password) >= 32
        assert password not in Path(f"/proc/{pid}/cmdline").read_text()
        [(address, port)] = listening_ports(pid)
        assert address == "0100007F"
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", trust_env=False) as stranger:
            assert (await stranger.post("/core/stats", json={})).status_code == 401
            assert (await stranger.post("/core/version", json={}, auth=("stagecoach", "x"))).status_code == 401
        assert rclone.redacted(f"the word is {password}") == "the word is [hidden]"
    assert not alive(pid)


async def test_it_comes_back_a_few_times_and_then_stays_away(tmp_path: Path, send: Path) -> None:
    async with RcloneProcess(tmp_path / "state", roots=[send], max_starts=3) as rclone:
        pids = set()
        for _ in range(3):
            assert rclone.pid is not None
            pid = rclone.pid
            pids.add(pid)
            assert "version" in await rclone.call("core/version")
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: rclone.pid != pid)  # type: ignore[misc]
            if len(pids) < 3:
                await until(lambda: rclone.pid is not None)
        with pytest.raises(RcloneUnavailable, match="3 times"):
            await rclone.call("core/version")
        assert len(pids) == 3
    with pytest.raises(RcloneUnavailable):
        await rclone.call("core/version")


async def test_a_question_waits_for_an_rclone_that_starts_again(rclone: RcloneProcess) -> None:
    assert rclone.pid is not None
    old = rclone.pid
    os.kill(old, signal.SIGKILL)
    await until(lambda: rclone.pid != old)
    assert "version" in await rclone.call("core/version")
    assert rclone.pid not in {None, old}


async def test_a_job_that_it_does_not_know_is_said_in_its_own_words(rclone: RcloneProcess) -> None:
    with pytest.raises(CommandFailed, match="job not found"):
        await rclone.call("job/status", {"jobid": 12345})


AGENT = """
import asyncio, sys
from pathlib import Path
from stagecoach.agent.rclone_process import RcloneProcess
from stagecoach.agent.receiver import Receiver

async def main(place: Path) -> None:
    async with RcloneProcess(place / "rclone", roots=[place]) as rclone, Receiver(
        place / "receiver", receive_directory=place, host="127.0.0.1", port=0, names=["127.0.0.1"]
    ) as receiver:
        print(rclone.pid, receiver.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


async def test_neither_outlives_an_agent_that_is_killed(tmp_path: Path) -> None:
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert agent.stdout is not None
        pids = [int(word) for word in (await asyncio.wait_for(agent.stdout.readline(), 30)).split()]
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
    finally:
        agent.kill()
        await agent.wait()
    await until(lambda: not any(alive(pid) for pid in pids), 5)
