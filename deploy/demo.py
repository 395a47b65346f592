"""The demonstration: starts everything on this machine, sends a real file through it and brings it back."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from stagecoach.client import Client
from stagecoach.wire.transfers import TransferDetail

HERE = Path(__file__).resolve().parent.parent / ".demo"
SIZE_BYTES = 200 * 1024 * 1024
START_SECONDS = 60
console = Console()


def main() -> int:
    """Exit code 0 when the file came back equal."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--once", action="store_true", help="stop after the round trip")
    once = arguments.parse_args().once
    cluster, laptop = HERE / "cluster", HERE / "laptop"
    for directory in (cluster, laptop):
        directory.mkdir(parents=True, exist_ok=True)
    ready = HERE / "ready.json"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "stagecoach", "up", "--port", "0" if once else free_port()]
    command += ["--state-directory", str(HERE / "state"), "--root", str(cluster), "--ready-file", str(ready)]
    # A session of its own keeps Ctrl-C from reaching it before we ask it to stop.
    service = subprocess.Popen(command, stdout=subprocess.DEVNULL if once else None, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    try:
        access = wait_until_ready(service, ready)
        if access is None:
            console.print("[red]Stagecoach did not start; its words are above.")
            return 1
        equal = asyncio.run(round_trip(access, cluster, laptop))
        if not equal:
            console.print("[red]The file came back different.")
            return 1
        if once:
            return 0
        print_next_steps(access, cluster)
        return service.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        service.terminate()
        service.wait()
        for leftover in (laptop, cluster):
            shutil.rmtree(leftover, ignore_errors=True)


def free_port() -> str:
    """PORT when it is set; else 8080, or any when that is taken."""
    if "PORT" in os.environ:
        return os.environ["PORT"]
    with socket.socket() as probe:
        return "0" if probe.connect_ex(("127.0.0.1", 8080)) == 0 else "8080"


def wait_until_ready(service: subprocess.Popen[bytes], ready: Path) -> dict[str, str] | None:
    """What the service wrote once it answered; None when it ended or took too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and service.poll() is None:
        if ready.exists():
            access: dict[str, str] = json.loads(ready.read_text(encoding="utf-8"))
            return access
        time.sleep(0.05)
    return None


async def round_trip(access: dict[str, str], cluster: Path, laptop: Path) -> bool:
    """Upload, download, compare."""
    source, target, back = laptop / "data.bin", cluster / "data.bin", laptop / "data-back.bin"
    with source.open("wb") as file:
        for _ in range(SIZE_BYTES // 2**20):
            file.write(secrets.token_bytes(2**20))
    columns = (TextColumn("{task.description:<20}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    async with Client(access["url"], access["token"]) as client:
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:

            def leg(description: str) -> TaskID:
                return progress.add_task(description, total=SIZE_BYTES)

            def follow(task: TaskID) -> Callable[[TransferDetail], None]:
                return lambda transfer: progress.update(task, completed=transfer.bytes_moved)

            def count(task: TaskID) -> Callable[[int], None]:
                return lambda done: progress.update(task, completed=done)

            put, fetch = leg("laptop → staging"), leg("staging → cluster")
            await client.upload(access["system"], source, str(target), count(put), on_look=follow(fetch))
            put, fetch = leg("cluster → staging"), leg("staging → laptop")
            await client.download(access["system"], str(target), back, count(fetch), on_look=follow(put))
            for task in progress.task_ids:
                progress.update(task, completed=SIZE_BYTES)
    digests = [sha256(path) for path in (source, target, back)]
    for name, digest in zip(("sent", "on the cluster", "came back"), digests, strict=True):
        print(f"SHA-256 {name:<15} {digest}")
    return len(set(digests)) == 1


def sha256(path: Path) -> str:
    """In hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def print_next_steps(access: dict[str, str], cluster: Path) -> None:
    """Three things to try."""
    console.print(
        f"""
[bold]It works. Open it in a browser, signed in as you:[/bold]
   {access["portal"]}
[bold]Three things to try in another terminal:[/bold]
1. See your transfers:
   curl -s -H "Authorization: Bearer {access["token"]}" {access["url"]}/transfers
2. Read and try the API in a browser: {access["url"]}/docs
3. Begin an upload by hand, as the README's section "By hand" shows, with
   STAGECOACH_URL={access["url"]} STAGECOACH_SYSTEM={access["system"]} and a target in {cluster}

Ctrl-C ends everything.""",
        soft_wrap=True,
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
