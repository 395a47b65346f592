"""The whole road: ``stagecoach cp`` of a large file with its staging job, against s5cmd up and down again.

Needs the testbed with the service on it (``make testbed-up``). The file lies in memory; it arrives on the disk of the
cluster, and s5cmd writes its copy to the same disk. s5cmd leaves its copy in the system's cache while the staging job
syncs it before it calls it done, so s5cmd is also measured with a ``sync`` of its file behind it. Besides: how long a
small file takes from the client's completion until it is at its place.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from measuring import BUCKET, Command, Store, in_turns, print_table, random_file, tool, write_results


class Road:
    """A file of alice's, and where copies of it arrive."""

    def __init__(self, store: Store, size_bytes: int, directory: Path) -> None:
        self.store, self.size_bytes = store, size_bytes
        self.source = directory / "source"
        random_file(self.source, size_bytes)
        self.home = Path(store.testbed["ALICE_HOME"])
        self.placed, self.copied = self.home / "bench-placed", self.home / "bench-copied"
        self.environment = {
            **store.environment,
            "STAGECOACH_URL": store.testbed["STAGECOACH_URL"],
            "STAGECOACH_TOKEN": store.testbed["ALICE_TOKEN"],
            "XDG_STATE_HOME": str(directory / "state"),
        }

    def contenders(self) -> dict[str, Command]:
        """The road and its peers."""
        up = shlex.join(self.store.s5cmd("cp", str(self.source), f"s3://{BUCKET}/copy"))
        down = shlex.join(self.store.s5cmd("cp", f"s3://{BUCKET}/copy", str(self.copied)))
        synced = f"{up} && {down} && sync {shlex.quote(str(self.copied))}"
        target = f"{self.store.testbed['STAGECOACH_SYSTEM']}:{self.placed}"
        return {
            "stagecoach cp, placed": lambda: [tool("stagecoach"), "cp", str(self.source), target],
            "s5cmd up, s5cmd down": lambda: ["sh", "-c", f"{up} && {down}"],
            "s5cmd up, down, sync": lambda: ["sh", "-c", synced],
        }

    def clear(self) -> None:
        """Nothing of the run before is left, and no disk is still busy with it."""
        for path in (self.placed, self.copied):
            path.unlink(missing_ok=True)
        self.store.delete("copy")
        os.sync()


def placing_seconds(store: Store, rounds: int) -> list[float]:
    """From the answer to the client's completion to the whole file at its place, 1 MiB."""
    content, target = os.urandom(2**20), Path(store.testbed["ALICE_HOME"]) / "bench-small"
    headers = {"Authorization": f"Bearer {store.testbed['ALICE_TOKEN']}"}
    found = []
    with httpx.Client(base_url=store.testbed["STAGECOACH_URL"], headers=headers, timeout=60) as service, httpx.Client() as s3:
        for _ in range(rounds):
            target.unlink(missing_ok=True)
            directives = {"transferMethod": "s3", "fileSize": len(content)}
            body = {"path": str(target), "transferDirectives": directives}
            begun = service.post(f"/filesystem/{store.testbed['STAGECOACH_SYSTEM']}/transfer/upload", json=body)
            begun.raise_for_status()
            directives = begun.json()["transferDirectives"]
            etag = s3.put(directives["partsUploadUrls"][0], content=content).headers["etag"]
            part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
            xml = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>"
            s3.post(directives["completeUploadUrl"], content=xml).raise_for_status()
            completed = time.monotonic()
            while not target.exists():
                time.sleep(0.005)
            found.append(time.monotonic() - completed)
    target.unlink(missing_ok=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where the source lies")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="stagecoach-bench-", dir=options.directory))
    store = Store()
    try:
        road = Road(store, options.size_mib * 2**20, directory)
        with store.bucket():
            measured = in_turns(road.contenders(), options.rounds, road.environment, road.clear)
        rows = {name: runs.row(road.size_bytes) for name, runs in measured.items()}
        peers = tuple(name for name in rows if name.startswith("s5cmd"))
        print_table(f"the whole road, {store.kind}, {options.size_mib} MiB, median of {options.rounds}", rows, peers)
        small = placing_seconds(store, 10)
        latency = {"median_seconds": round(statistics.median(small), 2), "longest_seconds": round(max(small), 2)}
        print(f"complete to placed, 1 MiB, {len(small)} times: {latency}")
        result = {"size_mib": options.size_mib, "rounds": options.rounds, "cores": os.cpu_count(), "rows": rows}
        write_results(store.kind, "road", {**result, "complete_to_placed_1_mib": latency})
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
