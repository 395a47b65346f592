"""The bundled store as a real child process: how it starts, ends, and what happens when its parent is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from stagecoach.core.errors import SettingsError
from stagecoach.object_stores import embedded
from stagecoach.object_stores.embedded import EmbeddedStore

KEY, SECRET = "stagecoach", 'a "secret"'


def store_in(directory: Path, **more: Any) -> EmbeddedStore:
    return EmbeddedStore(
        directory / "a:store",
        access_key_id=KEY,
        secret_access_key=SECRET,
        log_file=directory / "logs" / "rclone.log",
        pid_file=directory / "rclone.pid",
        **more,
    )


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_it_starts_answers_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RCLONE_ADDR", "127.0.0.1:1")
    async with store_in(tmp_path) as store:
        pid = store.pid
        assert pid is not None
        async with httpx.AsyncClient() as http:
            assert (await http.get(store.url)).status_code >= 400
        assert os.getpgid(pid) != os.getpgid(0)
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert SECRET not in command
        assert KEY not in command.split("\0")
    assert not is_alive(pid)
    assert store.pid is None
    assert (tmp_path / "logs" / "rclone.log").stat().st_mode & 0o077 == 0
    assert SECRET not in (tmp_path / "logs" / "rclone.log").read_text()
    await store.stop()
    async with store:
        assert store.pid not in {None, pid}


async def test_the_pages_of_one_origin_may_put_parts(tmp_path: Path) -> None:
    origin = "http://127.0.0.1:8080"
    asks = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    async with httpx.AsyncClient() as http:
        async with store_in(tmp_path, allowed_origin=origin) as store:
            answer = await http.options(f"{store.url}/bucket/key", headers=asks)
            assert answer.is_success
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
            refused = await http.put(f"{store.url}/bucket/key", content=b"x", headers={"Origin": origin})
            assert refused.is_client_error, "only presigned requests are served, whatever the origin"
            assert refused.headers["Access-Control-Allow-Origin"] == origin, "a page sees what went wrong"
        async with store_in(tmp_path) as store:
            answer = await http.options(f"{store.url}/bucket/key", headers=asks)
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_the_same_port_after_a_restart(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        url = store.url
    async with store_in(tmp_path, port=int(url.rpartition(":")[2])) as again:
        assert again.url == url


async def test_only_one_for_a_directory(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        with pytest.raises(SettingsError, match="already runs"):
            await store_in(tmp_path).start()
        assert store.pid is not None
        async with httpx.AsyncClient() as http:
            assert (await http.get(store.url)).status_code >= 400


async def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match=r"does not start: .*address already in use"):
            await store_in(tmp_path, port=taken.getsockname()[1]).start()


async def test_a_store_whose_parent_was_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
sys.path[:0] = {[*sys.path]!r}
from pathlib import Path
from stagecoach.object_stores.embedded import EmbeddedStore
async def main():
    root = Path({str(tmp_path)!r})
    store = EmbeddedStore(root / "a:store", access_key_id="stagecoach", secret_access_key="other",
                          log_file=root / "rclone.log", pid_file=root / "rclone.pid")
    await store.start()
    print(store.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    orphan = int(await parent.stdout.readline())
    with pytest.raises(SettingsError, match="already runs"):
        await store_in(tmp_path).start()
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    assert is_alive(orphan)
    async with store_in(tmp_path) as store:
        assert not is_alive(orphan)
        assert store.pid is not None


@pytest.mark.parametrize("noted", ["", "not json", "[]", '{"pid": 1, "started": "another boot/1"}', '{"pid": "x"}'])
async def test_a_pid_file_of_something_else(tmp_path: Path, noted: str) -> None:
    (tmp_path / "rclone.pid").write_text(noted.replace('"pid": 1', f'"pid": {os.getpid()}'))
    async with store_in(tmp_path) as store:
        assert store.pid is not None


async def test_without_rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=r"stagecoach\[embedded\]"):
        await store_in(tmp_path).start()


@pytest.mark.parametrize(("key", "secret"), [("AK", "s"), ("AKIA", ""), ("A,KIA", "s"), ("AKIA", "a,b")])
def test_a_key_that_rclone_would_not_accept(tmp_path: Path, key: str, secret: str) -> None:
    with pytest.raises(SettingsError, match=r"s3\.access_key_id"):
        EmbeddedStore(tmp_path, access_key_id=key, secret_access_key=secret, log_file=tmp_path, pid_file=tmp_path)
