"""The mover against s5cmd, rclone and curl: same store, same file, same run, in turns.

Needs a running testbed (``make testbed-up``) and measures whichever store it has. Files lie in memory (``--directory``),
where it is the way to the store that is compared, and once more on a disk (``--disk``), where a file counts as fetched
when it is synced: the mover does that by itself, the others are followed by ``sync FILE``. Prints tables and adds to
``bench/results.json``.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from measuring import BUCKET, ROOT, Command, Store, in_turns, print_table, random_file, write_results

MOVER = ROOT / "src/stagecoach/mover/stagecoach_mover.py"
PART_BYTES = 32 * 1024 * 1024  # as the service cuts a file of 2 GiB
SMALL_PARTS = 10_000
SMALLEST_PART_BYTES_OF_RGW = 5 * 1024 * 1024


class Bench:
    """A file, an object of the same content, and tickets both ways."""

    def __init__(self, store: Store, size_bytes: int, directory: Path) -> None:
        self.store, self.size_bytes, self.directory = store, size_bytes, directory
        self.source, self.target = directory / "source", directory / "target"
        random_file(self.source, size_bytes)
        self.part_crc32 = self._part_crc32()

    def _part_crc32(self) -> list[str]:
        """What our own client gives for each part."""
        with self.source.open("rb") as file:
            return [f"{zlib.crc32(part):08x}" for part in iter(lambda: file.read(PART_BYTES), b"")]

    def ticket(self, kind: str, path: Path, part_bytes: int) -> dict[str, Any]:
        """What both directions share."""
        encoded = base64.b64encode(os.fsencode(path)).decode()
        head = {"version": 1, "transfer_id": "bench", "kind": kind, "path_base64": encoded}
        return {**head, "size_bytes": self.size_bytes, "part_size_bytes": part_bytes}

    def fetch(self, *options: str, part_bytes: int = PART_BYTES, **said: Any) -> list[str]:
        """The mover's command; the state directory is fresh, so nothing is taken over."""
        sign = self.store.sign
        urls = {"get_url": sign("get_object", "source"), "head_url": sign("head_object", "source"), "etag": None}
        return self.mover({**self.ticket("fetch", self.target, part_bytes), "object": urls, **said}, options)

    def put(self, *options: str, key: str = "copy", part_bytes: int = PART_BYTES) -> list[str]:
        """Into a new multipart upload."""
        sign = self.store.sign
        upload = self.store.s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        numbers = range(1, -(-self.size_bytes // part_bytes) + 1)
        urls = {
            "part_urls": [sign("upload_part", key, UploadId=upload, PartNumber=number) for number in numbers],
            "complete_url": sign("complete_multipart_upload", key, UploadId=upload),
            "head_url": sign("head_object", key),
        }
        return self.mover({**self.ticket("put", self.source, part_bytes), "upload": urls}, options)

    def mover(self, ticket: dict[str, Any], options: tuple[str, ...]) -> list[str]:
        """Just as the staging job runs it."""
        state = Path(tempfile.mkdtemp(dir=self.directory))
        (state / "ticket.json").write_text(json.dumps(ticket), encoding="utf-8")
        return [sys.executable, "-I", "-S", str(MOVER), ticket["kind"], "--ticket", str(state / "ticket.json"), *options]

    def fetch_by_crc32(self) -> list[str]:
        """As the staging job of an upload by our own client, who has said what each part is."""
        return self.fetch(part_digests={"crc32": self.part_crc32})

    def fetch_by_s5cmd(self) -> list[str]:
        """The same object."""
        return self.store.s5cmd("cp", f"s3://{BUCKET}/source", str(self.target))

    def fetch_by_rclone(self) -> list[str]:
        """The object that it put itself."""
        return self.store.rclone(self.store.for_rclone("by-rclone"), str(self.target))

    def prepare(self) -> str:
        """Two objects of the same content. Gives the kind of rclone's: it compares MD5s where the store keeps its note."""
        subprocess.run(self.put(key="source"), check=True, stdout=subprocess.DEVNULL)
        put = self.store.rclone(str(self.source), self.store.for_rclone("by-rclone"))
        subprocess.run(put, check=True, env=self.store.environment)
        notes = self.store.s3.head_object(Bucket=BUCKET, Key="by-rclone")["Metadata"]
        return "hashes" if "md5chksum" in {note.lower() for note in notes} else "no hash kept by this store"

    def fetchers(self, how_rclone_proves: str) -> dict[str, Command]:
        """Who is compared in fetching."""
        return {
            "mover, verified": lambda: self.fetch(),
            "mover, verified by the client's CRC-32": self.fetch_by_crc32,
            "mover, verified, 2 at once": lambda: self.fetch("--concurrency", "2"),
            "mover, verified, 8 at once": lambda: self.fetch("--concurrency", "8"),
            "mover, unverified": lambda: self.fetch("--no-verify"),
            "mover, unverified, 8 at once": lambda: self.fetch("--no-verify", "--concurrency", "8"),
            "mover, verified, 10,000 parts": lambda: self.fetch(part_bytes=-(-self.size_bytes // SMALL_PARTS)),
            "s5cmd (no digest)": self.fetch_by_s5cmd,
            f"rclone ({how_rclone_proves})": self.fetch_by_rclone,
            "rclone --ignore-checksum": lambda: [*self.fetch_by_rclone(), "--ignore-checksum"],
            "curl, one stream": lambda: ["curl", "-sf", "-o", str(self.target), self.store.sign("get_object", "source")],
        }

    def durable_fetchers(self, how_rclone_proves: str) -> dict[str, Command]:
        """Who is compared in fetching onto a disk, synced."""

        def synced(command: list[str]) -> list[str]:
            return ["sh", "-c", 'target=$1; shift; "$@" && sync "$target"', "synced", str(self.target), *command]

        return {
            "mover, verified": lambda: self.fetch(),
            "mover, verified by the client's CRC-32": self.fetch_by_crc32,
            "mover, unverified": lambda: self.fetch("--no-verify"),
            "s5cmd (no digest), sync": lambda: synced(self.fetch_by_s5cmd()),
            f"rclone ({how_rclone_proves}), sync": lambda: synced(self.fetch_by_rclone()),
        }

    def putters(self) -> dict[str, Command]:
        """Who is compared in putting."""
        store, source = self.store, str(self.source)
        putters: dict[str, Command] = {
            "mover, verified": lambda: self.put(),
            "mover, verified, 2 at once": lambda: self.put("--concurrency", "2"),
            "mover, verified, 8 at once": lambda: self.put("--concurrency", "8"),
            "mover, verified, 16 MiB parts": lambda: self.put(part_bytes=16 * 2**20),
            "mover, unverified": lambda: self.put("--no-verify"),
            "s5cmd (hashes)": lambda: store.s5cmd("cp", source, f"s3://{BUCKET}/copy"),
            "rclone (hashes)": lambda: store.rclone(source, store.for_rclone("copy")),
        }
        small = -(-self.size_bytes // SMALL_PARTS)
        if store.kind != "rgw" or small >= SMALLEST_PART_BYTES_OF_RGW:
            putters["mover, verified, 10,000 parts"] = lambda: self.put(part_bytes=small)
        return putters

    def clear(self) -> None:
        """Nothing of the run before is left."""
        self.target.unlink(missing_ok=True)
        # Deleted data is given back late; copies that pile up would fill a small store.
        self.store.delete("copy")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mib", type=int, default=2048, help="putting needs room in RGW: OSDGB=40")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("fetch", "fetch onto disk", "put"), help="one table")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where the files lie")
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="where they lie that are synced")
    options = parser.parse_args()
    directory, on_disk = (Path(tempfile.mkdtemp(prefix="stagecoach-bench-", dir=at)) for at in (options.directory, options.disk))
    store = Store()
    try:
        bench = Bench(store, options.size_mib * 2**20, directory)
        with store.bucket():
            proof = bench.prepare()
            tables = {
                "fetch": (bench.fetchers(proof), directory),
                "fetch onto disk": (bench.durable_fetchers(proof), on_disk),
                "put": (bench.putters(), directory),
            }
            for direction, (contenders, place) in tables.items():
                if options.only not in (None, direction):
                    continue
                bench.target = place / "target"
                measured = in_turns(contenders, options.rounds, store.environment, bench.clear)
                rows = {name: runs.row(bench.size_bytes) for name, runs in measured.items()}
                peers = tuple(name for name in rows if name.startswith(("s5cmd", "rclone (")))
                print_table(f"{direction}, {store.kind}, {options.size_mib} MiB, median of {options.rounds}", rows, peers)
                result = {"size_mib": options.size_mib, "rounds": options.rounds, "cores": os.cpu_count(), "rows": rows}
                write_results(store.kind, direction, result)
    finally:
        for place in (directory, on_disk):
            shutil.rmtree(place)


if __name__ == "__main__":
    main()
