"""From node to node over the testbed's wide area network: a direct transfer against plain ``rclone copy`` on the same link.

Needs the testbed with its nodes (``make testbed-up`` as root). rclone has its own defaults, a receiver without our keys
(``rclone serve s3`` with TLS), and is done when it ends: nothing is compared again, synced or moved to its place. Of the
direct transfer both are told: the whole, from the request until everything is at its place, and the copy alone, from the
sender's first byte to its last as the service was told, to within two seconds.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from measuring import ROOT, random_file, tool, write_results

PEER_PORT = 8555
KEY, SECRET = "BENCHBENCHBENCH", "bench-secret-of-no-worth"
SMALL_BYTES = 10_000


class Nodes:
    """Both, as root sees them, and the service as alice."""

    def __init__(self) -> None:
        lines = shlex.split((ROOT / ".testbed/env").read_text(encoding="utf-8"), comments=True)
        self.testbed = dict(line.split("=", 1) for line in lines)
        self.send, self.receive = Path(self.testbed["NODE_A_SEND"]), Path(self.testbed["NODE_B_RECEIVE"])
        self.environment = {
            **os.environ,
            "VENV": sys.prefix,
            "TESTBED_ROOT": self.testbed["TESTBED_ROOT"],
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_AUTH_KEY": f'"{KEY},{SECRET}"',  # a list of one, each in CSV quotes
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        self.service = self._as("ALICE")
        with self._as("BOB") as bob:
            bob.post(f"/nodes/{self.testbed['NODE_B']}/grants", json={"user": "alice"})

    def _as(self, name: str) -> httpx.Client:
        token = {"Authorization": f"Bearer {self.testbed[f'{name}_TOKEN']}"}
        return httpx.Client(base_url=self.testbed["STAGECOACH_URL"], headers=token, trust_env=False, timeout=60)

    def inside(self, side: str, *command: str) -> list[str]:
        """In a node's network, as its owner."""
        return [str(ROOT / "deploy/testbed/in-node"), side, *command]

    @contextmanager
    def peer(self) -> Iterator[list[str]]:
        """A plain receiver on node b; gives the words that name it to rclone on node a."""
        state, folder = self.receive.parent / "state/receiver", self.receive / "bench-peer"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        give(folder, "bob")
        certificate = self.send / "bench-certificate.pem"
        shutil.copyfile(state / "receiver-certificate.pem", certificate)
        certificate.chmod(0o644)
        address = f"{self.testbed['NODE_ADDRESS_B']}:{PEER_PORT}"
        tls = ["--cert", str(state / "receiver-certificate.pem"), "--key", str(state / "receiver-key.pem")]
        command = self.inside("b", tool("rclone"), "serve", "s3", "--addr", address, *tls, str(folder))
        log = folder / "log"
        with log.open("wb") as written, subprocess.Popen(command, env=self.environment, stderr=written) as serving:
            try:
                while b"Starting s3 server" not in log.read_bytes():
                    if serving.poll() is not None:
                        raise SystemExit(f"rclone serve does not run: {log.read_text()}")
                    time.sleep(0.1)
                yield [f":s3,provider=Rclone,endpoint='https://{address}',env_auth=true:data", "--ca-cert", str(certificate)]
            finally:
                serving.terminate()
                certificate.unlink()
                shutil.rmtree(folder)

    def rclone_seconds(self, name: str, peer: list[str]) -> float:
        """Of ``rclone copy`` to the peer."""
        begun = time.monotonic()
        command = self.inside("a", tool("rclone"), "copy", str(self.send / name), f"{peer[0]}/{name}", *peer[1:])
        subprocess.run(command, env=self.environment, check=True)
        seconds = time.monotonic() - begun
        shutil.rmtree(self.receive / "bench-peer/data" / name)
        return seconds

    def direct_seconds(self, name: str, is_directory: bool) -> tuple[float, float]:
        """Of a direct transfer: whole, and of its copy."""
        source = name if is_directory else f"{name}/{name}"
        body: dict[str, Any] = {
            "source": {"system": f"node:{self.testbed['NODE_A']}", "path": f"/{source}"},
            "destination": {"system": f"node:{self.testbed['NODE_B']}", "path": f"/{name}"},
            "road": "direct",
        }
        begun = time.monotonic()
        answer = self.service.post("/transfers", json=body | ({"archive": "tar"} if is_directory else {}))
        answer.raise_for_status()
        transfer_id = answer.json()["transfer"]["id"]
        while True:
            shown = self.service.get(f"/transfers/{transfer_id}").json()
            if shown["state"] in {"done", "failed", "cancelled"}:
                break
            time.sleep(0.1)
        seconds = time.monotonic() - begun
        if shown["state"] != "done":
            raise SystemExit(f"{shown['code']}: {shown['reason']}")
        rates = self.service.get(f"/transfers/{transfer_id}/network-check").json()["rates"]
        first = max((at for at, count in rates if not count), default=0.0)
        last = next(at for at, count in rates if count >= shown["sizeBytes"])
        target = self.receive / name
        shutil.rmtree(target) if is_directory else target.unlink()
        return seconds, last - first


def give(top: Path, owner: str) -> None:
    """All below, too."""
    for path in (top, *top.rglob("*")):
        shutil.chown(path, owner, owner)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--small-files", type=int, default=5000, help="of 10 kB each; 0 leaves them out")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    nodes = Nodes()
    large, small = nodes.send / "bench-large", nodes.send / "bench-small"
    results: dict[str, Any] = {"size_mib": options.size_mib, "small_files": options.small_files, "rounds": options.rounds}
    try:
        large.mkdir()
        random_file(large / large.name, options.size_mib * 2**20)
        small.mkdir()
        for number in range(options.small_files):
            path = small / f"{number % 50}" / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(SMALL_BYTES))
        for top in (large, small):
            give(top, "alice")
        with nodes.peer() as peer:
            for top, is_directory in ((large, False), (small, True))[: 2 if options.small_files else 1]:
                plain, whole, copy = [], [], []
                for _ in range(options.rounds):
                    plain.append(nodes.rclone_seconds(top.name, peer))
                    seconds = nodes.direct_seconds(top.name, is_directory)
                    whole.append(seconds[0])
                    copy.append(seconds[1])
                medians = [statistics.median(each) for each in (plain, whole, copy)]
                row = {
                    "rclone_copy_seconds": round(medians[0], 1),
                    "direct_seconds": round(medians[1], 1),
                    "direct_copy_seconds": round(medians[2], 1),
                    "times_rclone": round(medians[0] / medians[1], 2),
                    "copy_times_rclone": round(medians[0] / medians[2], 2),
                }
                results[top.name.removeprefix("bench-")] = row
                print(top.name, row, flush=True)
        write_results(nodes.testbed["S3_KIND"], "nodes", results)
    finally:
        for top in (large, small):
            shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    main()
