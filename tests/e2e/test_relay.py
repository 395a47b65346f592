"""From the cluster to another place of it through the staging area: two staging jobs, one object, nothing left of either."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_audit import found
from tests.e2e.test_cancel import blocked_nodes
from tests.e2e.test_cli import Terminal, sha256
from tests.e2e.test_round_trip import PART, random_bytes
from tests.e2e.testbed import Testbed, wait_until

__all__ = ["blocked_nodes"]

# What failed on this system is kept for a retry; its jobs reach the store by the slow road.
KEEPING = "testbed-keeping"


def of_alice(testbed: Testbed, path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    os.chown(path, testbed.alice.uid, testbed.alice.uid)
    return path


def begin(testbed: Testbed, source: Path, target: Path, source_system: str | None = None, **more: Any) -> str:
    ends = {
        "source": {"system": source_system or testbed.system, "path": str(source)},
        "destination": {"system": testbed.system, "path": str(target)},
    }
    answer = testbed.alice.http.post("/transfers", json={**ends, **more})
    assert answer.status_code == 201, answer.text
    transfer_id: str = answer.json()["transfer"]["id"]
    return transfer_id


def require_nothing_left(testbed: Testbed, transfer: dict[str, Any]) -> None:
    """Of both legs, as the world and the audit see it."""
    for leg in transfer["legs"]:
        row = {"id": leg["transferId"], "path": leg["path"], "state": leg["state"]}
        testbed.wait_until_nothing_is_left(testbed.alice, row)
    ids = [leg["transferId"] for leg in transfer["legs"]]
    assert len(ids) == 2
    # A moment later the rows say so as well.
    report: dict[str, Any] = {}

    def is_clean() -> bool:
        report.update(testbed.audit())
        return not any(found(report, transfer_id) for transfer_id in ids)

    wait_until(is_clean, 60, f"the audit finds nothing of {ids}", pause=1)


@pytest.mark.parametrize("size_bytes", [0, 1000, 3 * PART + 1])
def test_a_file_arrives_as_it_was(testbed: Testbed, size_bytes: int) -> None:
    content = random_bytes(size_bytes)
    source = of_alice(testbed, testbed.fresh(testbed.alice, "relay source.bin"), content)
    target = testbed.fresh(testbed.alice, "relay target.bin")
    transfer = testbed.wait(testbed.alice, begin(testbed, source, target))
    assert transfer["state"] == "done", transfer
    assert target.read_bytes() == content == source.read_bytes()
    assert target.stat().st_uid == testbed.alice.uid
    assert [leg["leg"] for leg in transfer["legs"]] == ["source", "destination"]
    assert len({leg["jobId"] for leg in transfer["legs"]}) == 2
    assert transfer["proved"]
    assert transfer["legs"][0]["proved"]
    require_nothing_left(testbed, testbed.show(testbed.alice, transfer["id"]))


def test_a_directory_arrives_whole(testbed: Testbed) -> None:
    tree, target = testbed.alice.home / "relay tree", testbed.alice.home / "relay new tree"
    for old in (tree, target):
        shutil.rmtree(old, ignore_errors=True)
    tree.mkdir()
    os.chown(tree, testbed.alice.uid, testbed.alice.uid)
    for number in range(5):
        of_alice(testbed, tree / f"file {number}", random_bytes(1000 * number))
    (tree / "link").symlink_to("file 1")
    transfer = testbed.wait(testbed.alice, begin(testbed, tree, target, archive="tar"))
    assert transfer["state"] == "done", transfer
    assert sorted(path.name for path in target.iterdir()) == sorted(path.name for path in tree.iterdir())
    assert all((target / f"file {n}").read_bytes() == (tree / f"file {n}").read_bytes() for n in range(5))
    assert (target / "link").is_symlink()
    assert {path.lstat().st_uid for path in target.iterdir()} == {testbed.alice.uid}
    require_nothing_left(testbed, testbed.show(testbed.alice, transfer["id"]))


@pytest.mark.usefixtures("blocked_nodes")
def test_a_cancel_while_the_source_waits_leaves_nothing(testbed: Testbed) -> None:
    source = of_alice(testbed, testbed.fresh(testbed.alice, "relay source.bin"), b"x" * 1000)
    target = testbed.fresh(testbed.alice, "relay target.bin")
    cancel(testbed, begin(testbed, source, target), target)


def test_a_cancel_midway_leaves_nothing(testbed: Testbed) -> None:
    source = of_alice(testbed, testbed.fresh(testbed.alice, "relay source.bin"), random_bytes(PART) * 32)
    target = testbed.fresh(testbed.alice, "relay target.bin")
    transfer_id = begin(testbed, source, target)
    testbed.wait(testbed.alice, transfer_id, "staged", "queued", "moving")
    cancel(testbed, transfer_id, target, may_be_late=True)


def cancel(testbed: Testbed, transfer_id: str, target: Path, *, may_be_late: bool = False) -> None:
    answer = testbed.alice.http.delete(f"/transfers/{transfer_id}")
    transfer = testbed.wait(testbed.alice, transfer_id)
    if may_be_late and transfer["state"] == "done":
        assert target.exists()
    else:
        assert (answer.status_code, transfer["state"]) == (200, "cancelled"), transfer
        assert not target.exists()
    require_nothing_left(testbed, transfer)


@pytest.mark.usefixtures("slow_road")
def test_a_source_whose_job_was_cancelled_on_the_cluster_is_retried(testbed: Testbed) -> None:
    source = of_alice(testbed, testbed.fresh(testbed.alice, "relay source.bin"), random_bytes(1000))
    target = testbed.fresh(testbed.alice, "relay target.bin")
    testbed.slurm("scontrol", "update", "partitionname=debug", "state=DOWN")
    try:
        transfer_id = begin(testbed, source, target, KEEPING)
        leg = testbed.show(testbed.alice, transfer_id)["legs"][0]
        testbed.slurm("scancel", leg["jobId"])
        transfer = testbed.wait(testbed.alice, transfer_id)
    finally:
        testbed.slurm("scontrol", "update", "partitionname=debug", "state=UP")
    assert (transfer["state"], transfer["code"]) == ("failed", "job_cancelled"), transfer
    assert transfer["retryUntil"]
    assert testbed.alice.http.post(f"/transfers/{transfer_id}/retry").json()["state"] == "receiving"
    transfer = testbed.wait(testbed.alice, transfer_id)
    assert transfer["state"] == "done", transfer
    assert target.read_bytes() == source.read_bytes()
    require_nothing_left(testbed, transfer)


def test_the_command_line_shows_both_legs(testbed: Testbed, tmp_path: Path) -> None:
    terminal = Terminal(testbed, testbed.alice, tmp_path)
    source = of_alice(testbed, testbed.fresh(testbed.alice, "relay source.bin"), random_bytes(PART + 1))
    target = testbed.fresh(testbed.alice, "relay target.bin")
    places = f"{testbed.system}:{source}", f"{testbed.system}:{target}"
    code, out, err = terminal.run("cp", *places)
    assert code == 0, err
    assert " → ".join(places) in out
    assert "done:" in err
    assert sha256(target) == sha256(source)
    shown = terminal.run("transfers", "show", out.split()[0])[1]
    assert "source " in shown
    assert "destination " in shown
