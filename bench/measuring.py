"""What the benches share: the testbed's store, contenders run in turns, their wall time, CPU and memory, and the table.

Two cores shared by store and client make MB/s worthless elsewhere; the ratio of two contenders of the same run travels.
"""

from __future__ import annotations

import json
import os
import random
import select
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results.json"
BUCKET = "stagecoach-bench"
MEMORY_LOOK_MILLISECONDS = 100

Command = Callable[[], list[str]]
"""Makes a contender's command line, fresh for each run."""


@dataclass
class Runs:
    """One contender's runs."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def row(self, size_bytes: int) -> dict[str, float]:
        """Medians; MB are 10^6 bytes, GB 10^9."""
        return {
            "seconds": round(statistics.median(self.seconds), 3),
            "mb_per_second": round(size_bytes / 1e6 / statistics.median(self.seconds), 1),
            "cpu_seconds_per_gb": round(statistics.median(self.cpu_seconds) / (size_bytes / 1e9), 2),
            "peak_mib": round(self.peak_bytes / 2**20, 1),
        }


class Store:
    """The testbed's store, whichever it is, with a bucket of the bench's own."""

    def __init__(self) -> None:
        lines = shlex.split((ROOT / ".testbed/env").read_text(encoding="utf-8"), comments=True)
        self.testbed = dict(line.split("=", 1) for line in lines)
        self.kind, self.endpoint = self.testbed["S3_KIND"], self.testbed["S3_ENDPOINT"]
        config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", signature_version="s3v4")
        keys = {"aws_access_key_id": self.testbed["S3_ACCESS_KEY"], "aws_secret_access_key": self.testbed["S3_SECRET_KEY"]}
        self.s3: Any = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=config, **keys)
        self.environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": self.testbed["S3_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": self.testbed["S3_SECRET_KEY"],
            "AWS_REGION": "us-east-1",
            "RCLONE_CONFIG": os.devnull,
        }

    @contextmanager
    def bucket(self) -> Iterator[None]:
        """Empty at the end, that a small store does not fill up."""
        if BUCKET not in {bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]}:
            self.s3.create_bucket(Bucket=BUCKET)
        try:
            yield
        finally:
            self.delete(*(found["Key"] for found in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])))

    def delete(self, *keys: str) -> None:
        """Absent ones are fine."""
        for key in keys:
            self.s3.delete_object(Bucket=BUCKET, Key=key)

    def sign(self, operation: str, key: str, **more: Any) -> str:
        """A presigned URL."""
        url: str = self.s3.generate_presigned_url(operation, {"Bucket": BUCKET, "Key": key, **more}, ExpiresIn=3600)
        return url

    def s5cmd(self, *arguments: str) -> list[str]:
        """The program itself, not the wrapper that its Python package puts on the path."""
        return [str(packaged("s5cmd", "bin/s5cmd")), "--endpoint-url", self.endpoint, "--log", "error", *arguments]

    def rclone(self, source: str, target: str, *options: str) -> list[str]:
        """``copyto`` with multipart settings like the others'."""
        command = [tool("rclone"), "copyto", "--s3-chunk-size", "64M", "--s3-upload-concurrency", "4"]
        command += ["--multi-thread-streams", "4", "--multi-thread-cutoff", "64M", "--s3-no-check-bucket"]
        return [*command, *options, source, target]

    def for_rclone(self, key: str) -> str:
        """An object, in its own notation."""
        return f":s3,provider=Other,endpoint='{self.endpoint}',env_auth=true:{BUCKET}/{key}"


def in_turns(
    contenders: Mapping[str, Command], rounds: int, environment: Mapping[str, str], between: Callable[[], None]
) -> dict[str, Runs]:
    """Every contender once a round, so that a slow minute of the machine hits all of them; in another order each time.

    One run before the first round counts for nothing: a store that was just filled is busy with itself.
    """
    measured, order = {name: Runs() for name in contenders}, random.Random(rounds)
    between()
    measure(next(iter(contenders.values()))(), environment, Runs())
    for _ in range(rounds):
        for name in order.sample(list(contenders), len(contenders)):
            between()
            measure(contenders[name](), environment, measured[name])
    between()
    return measured


def measure(command: list[str], environment: Mapping[str, str], runs: Runs) -> None:
    """Wall time, and the CPU time and memory of the process with its children."""
    begun = time.monotonic()
    child = subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL, start_new_session=True)
    ended = select.poll()
    process = os.pidfd_open(child.pid)
    ended.register(process, select.POLLIN)
    # Looked at seldom, and at nothing else: who measures works on the same cores.
    while not ended.poll(MEMORY_LOOK_MILLISECONDS):
        runs.peak_bytes = max(runs.peak_bytes, peak_of(child.pid))
    _, status, usage = os.wait4(child.pid, 0)
    runs.seconds.append(time.monotonic() - begun)
    os.close(process)
    if status:
        raise SystemExit(f"failed: {command[:4]}")
    runs.cpu_seconds.append(usage.ru_utime + usage.ru_stime)


def peak_of(process: int) -> int:
    """The high-water marks of memory so far, of a process and its descendants, in bytes. Not ru_maxrss: that survives exec."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024 + sum(peak_of(int(child)) for child in children)


def tool(name: str) -> str:
    """A program of the virtual environment, or of PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is missing")
    return found


def packaged(package: str, path: str) -> Path:
    """A file inside an installed package."""
    module = __import__(package)
    return Path(module.__path__[0]) / path


def random_file(path: Path, size_bytes: int) -> None:
    """Nothing that a store or a line could compress."""
    block = os.urandom(8 * 2**20)
    with path.open("wb") as file:
        for number in range(-(-size_bytes // len(block))):
            file.write((number.to_bytes(8, "big") + block[8:])[: size_bytes - number * len(block)])


def print_table(title: str, rows: Mapping[str, Mapping[str, float]], peers: tuple[str, ...]) -> None:
    """Each contender's rate, also as a multiple of the peers' in the same run."""
    print(f"\n{title}")
    multiples = "".join(f"{'x ' + peer.split()[0]:>10}" for peer in peers)
    print(f"{'':<30}{'MB/s':>8}{multiples}{'CPU s/GB':>10}{'peak MiB':>10}")
    for name, row in rows.items():
        ratios = "".join(f"{row['mb_per_second'] / rows[peer]['mb_per_second']:>10.2f}" for peer in peers)
        print(f"{name:<30}{row['mb_per_second']:>8}{ratios}{row['cpu_seconds_per_gb']:>10}{row['peak_mib']:>10}", flush=True)


def write_results(store: str, name: str, result: Any) -> None:
    """Beside what else was measured, and on the other store."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    known.setdefault(store, {})[name] = result
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
