"""The mover against s5cmd, rclone and curl: same store, same file, same run, in turns; ratios travel, MB/s do not.

Needs a running testbed (``make testbed-up``); measures whichever store it has. Prints a table and adds it to
``bench/results.json``. Options: ``--size-mib``, ``--rounds``.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[1]
MOVER = ROOT / "src/stagecoach/mover/stagecoach_mover.py"
PART_BYTES = 64 * 1024 * 1024
BUCKET, KEY = "stagecoach-bench", "source"


@dataclass
class Runs:
    """One contender's runs."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def row(self, size_bytes: int) -> dict[str, float]:
        """Medians; MB are 10^6 bytes, GB 10^9."""
        return {
            "mb_per_second": round(size_bytes / 1e6 / statistics.median(self.seconds), 1),
            "cpu_seconds_per_gb": round(statistics.median(self.cpu_seconds) / (size_bytes / 1e9), 2),
            "peak_mib": round(self.peak_bytes / 2**20, 1),
        }


class Bench:
    """The store, a file on disk, and tickets for both directions."""

    def __init__(self, size_bytes: int, directory: Path) -> None:
        self.size_bytes, self.directory = size_bytes, directory
        lines = shlex.split((ROOT / ".testbed/env").read_text(encoding="utf-8"), comments=True)
        self.environment = dict(line.split("=", 1) for line in lines)
        self.endpoint = self.environment["S3_ENDPOINT"]
        config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", signature_version="s3v4")
        keys = {
            "aws_access_key_id": self.environment["S3_ACCESS_KEY"],
            "aws_secret_access_key": self.environment["S3_SECRET_KEY"],
        }
        self.s3: Any = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=config, **keys)
        self.source, self.target = directory / "source", directory / "target"

    @contextmanager
    def object_in_store(self) -> Iterator[None]:
        """A random file, on disk and as a multipart object."""
        block = os.urandom(8 * 2**20)
        with self.source.open("wb") as file:
            for number in range(self.size_bytes // len(block)):
                file.write(number.to_bytes(8, "big") + block[8:])
        if BUCKET not in {bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]}:
            self.s3.create_bucket(Bucket=BUCKET)
        self.mover("put", self.put_ticket(KEY))
        try:
            yield
        finally:
            for key in (KEY, "copy"):
                self.s3.delete_object(Bucket=BUCKET, Key=key)

    def sign(self, operation: str, key: str, **more: Any) -> str:
        """A presigned URL."""
        url: str = self.s3.generate_presigned_url(operation, {"Bucket": BUCKET, "Key": key, **more}, ExpiresIn=3600)
        return url

    def ticket(self, kind: str, path: Path) -> dict[str, Any]:
        """What both directions share."""
        encoded = base64.b64encode(os.fsencode(path)).decode()
        return {
            "version": 1,
            "transfer_id": "bench",
            "kind": kind,
            "path_base64": encoded,
            "size_bytes": self.size_bytes,
            "part_size_bytes": PART_BYTES,
        }

    def fetch_ticket(self) -> dict[str, Any]:
        """Of the object, to the target."""
        urls = {"get_url": self.sign("get_object", KEY), "head_url": self.sign("head_object", KEY), "etag": None}
        return {**self.ticket("fetch", self.target), "object": urls}

    def put_ticket(self, key: str) -> dict[str, Any]:
        """A new multipart upload of the source."""
        upload = self.s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        count = -(-self.size_bytes // PART_BYTES)
        urls = {
            "part_urls": [self.sign("upload_part", key, UploadId=upload, PartNumber=number) for number in range(1, count + 1)],
            "complete_url": self.sign("complete_multipart_upload", key, UploadId=upload),
            "head_url": self.sign("head_object", key),
        }
        return {**self.ticket("put", self.source), "upload": urls}

    def mover(self, kind: str, ticket: dict[str, Any], *options: str) -> list[str]:
        """Runs the mover as the staging job does, in a process of its own, when called without being measured."""
        command = self.mover_command(kind, ticket, *options)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return command

    def mover_command(self, kind: str, ticket: dict[str, Any], *options: str) -> list[str]:
        """Its command line; the state directory is fresh, so nothing is taken over."""
        state = Path(tempfile.mkdtemp(dir=self.directory))
        (state / "ticket.json").write_text(json.dumps(ticket), encoding="utf-8")
        return [sys.executable, str(MOVER), kind, "--ticket", str(state / "ticket.json"), *options]

    def contenders(self) -> dict[str, dict[str, Callable[[], list[str]]]]:
        """For each direction, what makes a contender's command."""
        s5 = [tool("s5cmd"), "--endpoint-url", self.endpoint, "--log", "error", "cp"]
        remote = f":s3,provider=Other,endpoint='{self.endpoint}',env_auth=true:{BUCKET}"
        rclone = [tool("rclone"), "copyto", "--s3-chunk-size", "64M", "--s3-upload-concurrency", "4"]
        rclone += ["--multi-thread-streams", "4", "--multi-thread-cutoff", "64M", "--s3-no-check-bucket"]
        return {
            "fetch": {
                "mover, verified": lambda: self.mover_command("fetch", self.fetch_ticket()),
                "mover, 8 connections": lambda: self.mover_command("fetch", self.fetch_ticket(), "--concurrency", "8"),
                "mover, unverified": lambda: self.mover_command("fetch", self.fetch_ticket(), "--no-verify"),
                "s5cmd (no digest)": lambda: [*s5, f"s3://{BUCKET}/{KEY}", str(self.target)],
                "rclone copy (hashes)": lambda: [*rclone, f"{remote}/{KEY}", str(self.target)],
                "curl, one stream": lambda: ["curl", "-sf", "-o", str(self.target), self.sign("get_object", KEY)],
            },
            "put": {
                "mover, verified": lambda: self.mover_command("put", self.put_ticket("copy")),
                "mover, 8 connections": lambda: self.mover_command("put", self.put_ticket("copy"), "--concurrency", "8"),
                "mover, unverified": lambda: self.mover_command("put", self.put_ticket("copy"), "--no-verify"),
                "s5cmd (hashes)": lambda: [*s5, str(self.source), f"s3://{BUCKET}/copy"],
                "rclone copy (hashes)": lambda: [*rclone, str(self.source), f"{remote}/copy"],
            },
        }

    def measure(self, command: list[str], runs: Runs) -> None:
        """Wall time, and the child's own CPU time and memory."""
        self.target.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": self.environment["S3_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": self.environment["S3_SECRET_KEY"],
            "AWS_REGION": "us-east-1",
            "RCLONE_CONFIG": os.devnull,
        }
        begun = time.monotonic()
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        # Not ru_maxrss: across exec it keeps what this process had when it forked.
        while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            runs.peak_bytes = max(runs.peak_bytes, peak_of(child.pid))
            time.sleep(0.02)
        _, status, usage = os.wait4(child.pid, 0)
        runs.seconds.append(time.monotonic() - begun)
        if status:
            raise SystemExit(f"failed: {command[:4]}")
        runs.cpu_seconds.append(usage.ru_utime + usage.ru_stime)


def peak_of(pid: int) -> int:
    """The high-water mark of a process's memory so far, in bytes; 0 when it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def tool(name: str) -> str:
    """A program of the virtual environment, or of PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is missing")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=512, help="the testbed's RGW has room for a few GB in all")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="stagecoach-bench-"))
    try:
        bench = Bench(options.size_mib * 2**20, directory)
        store = bench.environment["S3_KIND"]
        results: dict[str, Any] = {"size_mib": options.size_mib, "rounds": options.rounds, "cores": os.cpu_count()}
        with bench.object_in_store():
            for direction, contenders in bench.contenders().items():
                measured = {name: Runs() for name in contenders}
                for _ in range(options.rounds):
                    for name, command in contenders.items():
                        bench.measure(command(), measured[name])
                        # Deleted data is given back late; copies that pile up would fill a small store.
                        bench.s3.delete_object(Bucket=BUCKET, Key="copy")
                results[direction] = {name: runs.row(bench.size_bytes) for name, runs in measured.items()}
        print_table(store, results)
        write_results(store, results)
    finally:
        shutil.rmtree(directory)


def print_table(store: str, results: dict[str, Any]) -> None:
    """Rates, and each as a multiple of s5cmd's in the same run."""
    for direction in ("fetch", "put"):
        rows = results[direction]
        peer = next(row["mb_per_second"] for name, row in rows.items() if name.startswith("s5cmd"))
        print(f"\n{direction}, {store}, {results['size_mib']} MiB, median of {results['rounds']}")
        print(f"{'':<24}{'MB/s':>8}{'x s5cmd':>9}{'CPU s/GB':>10}{'peak MiB':>10}")
        for name, row in rows.items():
            ratio = row["mb_per_second"] / peer
            print(f"{name:<24}{row['mb_per_second']:>8}{ratio:>9.2f}{row['cpu_seconds_per_gb']:>10}{row['peak_mib']:>10}")


def write_results(store: str, results: dict[str, Any]) -> None:
    """Beside what was measured on the other store."""
    path = ROOT / "bench/results.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**known, store: results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
