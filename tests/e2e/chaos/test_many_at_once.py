"""Five hundred small uploads at once through two replicas of the API and three workers, one of each killed in the middle.

None is lost and none is done twice: the files, the rows, their stories and the scheduler's own books are counted.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from tests.e2e.chaos.batches import own_folder
from tests.e2e.chaos.leftovers import Leftovers
from tests.e2e.chaos.replicas import Replicas, own_replicas
from tests.e2e.chaos.tally import Tally
from tests.e2e.chaos.trips import is_to_come_again
from tests.e2e.testbed import Testbed, wait_until

UPLOADS = 500
AT_ONCE = 16
KILLED_AFTER = UPLOADS // 3


@pytest.fixture
def folder(testbed: Testbed) -> Iterator[Path]:
    with own_folder(testbed.alice, "chaos-many") as made:
        yield made


@pytest.fixture
def replicas(testbed: Testbed, own_root: Path) -> Iterator[Replicas]:
    system = {"limits": {"max_open_transfers_per_user": 2 * UPLOADS}}
    worker = {"run_in_api": False, "preparing_seconds": 20}
    with own_replicas(testbed, own_root / "many", "chaos-many", apis=2, workers=3, system=system, worker=worker) as made:
        yield made


@dataclass
class Client:
    """A program that uploads with some connections, asks again with the same key where no answer came, and takes turns
    between the replicas, as behind a load balancer."""

    testbed: Testbed
    replicas: Replicas
    folder: Path
    begin_seconds: list[float] = field(default_factory=list)
    unanswered: set[int] = field(default_factory=set)
    begun: int = 0
    enough_begun: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def content(self, number: int) -> bytes:
        return random.Random(number).randbytes(1000 + number)

    def upload(self, number: int) -> str:
        """The transfer's id, once its object is complete in the store."""
        content, started = self.content(number), time.monotonic()
        body = {
            "path": str(self.folder / f"{number}.bin"),
            "transferDirectives": {"transferMethod": "s3", "fileSize": len(content)},
        }
        answer = self._begin(number, body)
        with self._lock:
            self.begin_seconds.append(time.monotonic() - started)
            self.begun += 1
            if self.begun >= KILLED_AFTER:
                self.enough_begun.set()
        assert answer.status_code == 201, answer.text
        begun = answer.json()
        self.testbed.complete(begun, self.testbed.put_parts(begun, content))
        return str(begun["transferId"])

    def _begin(self, number: int, body: Mapping[str, object]) -> httpx.Response:
        headers, path = {"Idempotency-Key": f"many-{number}"}, "/filesystem/chaos-many/transfer/upload"
        for attempt in range(100):
            url = self.replicas.apis[(number + attempt) % 2].url + path
            try:
                answer = self.testbed.alice.http.post(url, json=body, headers=headers, timeout=120)
            except httpx.TransportError:
                with self._lock:
                    self.unanswered.add(number)
                time.sleep(0.05)
                continue
            if not is_to_come_again(answer):
                return answer
            time.sleep(min(int(answer.headers["Retry-After"]), 2))
        raise AssertionError(f"no replica answered upload {number}")


def percentiles(seconds: Sequence[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"median {cuts[49]:.2f} s, 95 % {cuts[94]:.2f} s, longest {max(seconds):.2f} s"


@pytest.mark.timeout(420)
def test_five_hundred_uploads_none_lost_none_twice(testbed: Testbed, replicas: Replicas, folder: Path, tally: Tally) -> None:
    client, started = Client(testbed, replicas, folder), time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        uploads = [threads.submit(client.upload, number) for number in range(UPLOADS)]
        assert client.enough_begun.wait(200)
        replicas.apis[0].kill()
        replicas.workers[0].kill()
        ids = [upload.result() for upload in uploads]
    put = time.monotonic() - started
    assert len(set(ids)) == UPLOADS

    def states() -> dict[str, int]:
        return dict(replicas.query("SELECT state, count(*) FROM transfers GROUP BY state"))

    wait_until(lambda: set(states()) <= {"done", "failed"}, 240, "all rows have ended", pause=0.5)
    through = time.monotonic() - started
    for number in range(UPLOADS):
        path = folder / f"{number}.bin"
        assert path.read_bytes() == client.content(number), path
    assert sorted(os.listdir(folder)) == sorted(f"{number}.bin" for number in range(UPLOADS))
    assert states()["done"] == UPLOADS, states()
    # What the API was preparing when it was killed is taken back, and its client's repeated request began anew.
    taken_back = replicas.query("SELECT id, code FROM transfers WHERE state = 'failed'")
    assert {code for _, code in taken_back} <= {"interrupted"}, taken_back
    assert len(taken_back) <= len(client.unanswered)
    check_stories(replicas)
    check_jobs(testbed, ids, [each for each, _ in taken_back])
    leftovers = Leftovers(testbed, replicas, folder)
    wait_until(lambda: not leftovers.unfinished_rows(), 120, "all is cleaned", pause=0.5)
    cleaned = time.monotonic() - started
    assert leftovers.found() == []

    waits = [float(row[0]) for row in replicas.query(STAGED_TO_DONE)]
    tally.notes += [
        f"{UPLOADS} uploads, {AT_ONCE} at once: put after {put:.1f} s, done after {through:.1f} s "
        f"({UPLOADS / through:.1f} a second), cleaned after {cleaned:.1f} s; "
        f"{len(client.unanswered)} asked the API that was killed, and then the other",
        f"  to begin one: {percentiles(client.begin_seconds)}",
        f"  from staged to done: {percentiles(waits)}",
    ]


STAGED_TO_DONE = """
    SELECT extract(epoch FROM done.at - staged.at) FROM transfer_history staged
    JOIN transfer_history done ON done.transfer_id = staged.transfer_id AND done.state = 'done'
    WHERE staged.state = 'staged'
"""


def check_stories(replicas: Replicas) -> None:
    """Every transfer came into each state once; a look may be too late to see one that was moving."""
    rows = replicas.query(
        "SELECT transfer_id, transfer_history.state, count(*) FROM transfer_history JOIN transfers ON transfers.id = transfer_id "
        "WHERE transfers.state = 'done' GROUP BY transfer_id, transfer_history.state"
    )
    assert all(count == 1 for _, _, count in rows), [row for row in rows if row[2] != 1]
    seen = Counter(state for _, state, _ in rows)
    for state in ("preparing", "receiving", "staged", "queued", "done"):
        assert seen[state] == UPLOADS, seen
    assert set(seen) <= {"preparing", "receiving", "staged", "queued", "moving", "done"}, seen


def check_jobs(testbed: Testbed, done: Sequence[str], taken_back: Sequence[str]) -> None:
    """Slurm's accounting knows one job for each transfer, which ran once and well; what was taken back never ran."""

    def accounted(ids: Sequence[str]) -> list[tuple[str, str]]:
        """Id and state of every job of these transfers, the runs before a requeue too."""
        lines = testbed.slurm("sacct", "-a", "-n", "-P", "-X", "-D", "-S", "now-1hour", "--format=JobName,State").splitlines()
        rows = [line.removeprefix("stagecoach-").split("|") for line in lines if line.startswith("stagecoach-")]
        return [(each, state) for each, state in ((name[:26], state) for name, state in rows) if each in set(ids)]

    def all_ran() -> bool:
        return Counter(accounted(done)) == Counter((each, "COMPLETED") for each in done)

    try:
        wait_until(all_ran, 60, "accounting knows one job each", pause=1)
    except AssertionError as error:
        raise AssertionError(
            [row for row, count in Counter(accounted(done)).items() if row[1] != "COMPLETED" or count > 1]
        ) from error
    assert all(state.startswith("CANCELLED") for _, state in accounted(taken_back)), accounted(taken_back)
