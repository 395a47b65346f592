"""From alice's node straight to bob's over a wide area network, whatever is stopped, killed, shut or revoked on the way."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from deploy.testbed.control import ask
from tests.e2e.logs import Logs
from tests.e2e.nodes.node import LONG_SECONDS, Node, nodes_up
from tests.e2e.nodes.test_secrecy import Watch, dump
from tests.e2e.testbed import Testbed, wait_until

MIB = 1024 * 1024
FILES = 5000
FOLDER = "direct"
# In parts of 16 MiB, eight of which are under way at once.
LARGE = 640 * MIB


class Road:
    """From node a to node b."""

    def __init__(self, testbed: Testbed, a: Node, b: Node) -> None:
        self.testbed, self.a, self.b = testbed, a, b
        self.arrived = b.receive / FOLDER

    def grant(self, **terms: Any) -> str:
        answer = self.b.owner.http.post(f"/nodes/{self.b.id}/grants", json={"user": "alice", "folder": f"/{FOLDER}", **terms})
        assert answer.status_code == 201, answer.text
        grant_id: str = answer.json()["id"]
        return grant_id

    def revoke(self, grant_id: str) -> None:
        assert self.b.owner.http.delete(f"/nodes/{self.b.id}/grants/{grant_id}").status_code == 204

    def revoke_all(self) -> None:
        for grant in self.b.owner.http.get(f"/nodes/{self.b.id}/grants").json()["grants"]:
            self.revoke(grant["id"])

    def ask(self, name: str, **more: Any) -> httpx.Response:
        ends = {
            "source": {"system": self.a.system, "path": f"/{name}"},
            "destination": {"system": self.b.system, "path": f"/{FOLDER}/{name}"},
        }
        return self.a.owner.http.post("/transfers", json={**ends, **more})

    def begin(self, name: str, **more: Any) -> str:
        answer = self.ask(name, **more)
        assert answer.status_code == 201, answer.text
        transfer_id: str = answer.json()["transfer"]["id"]
        return transfer_id

    def show(self, transfer_id: str) -> dict[str, Any]:
        return self.testbed.show(self.a.owner, transfer_id)

    def wait(self, transfer_id: str, seconds: float = 400) -> dict[str, Any]:
        return self.testbed.wait(self.a.owner, transfer_id, seconds=seconds)

    def wait_for_bytes(self, transfer_id: str, least: int) -> None:
        """So many have come, and not all."""

        def look() -> bool:
            shown = self.show(transfer_id)
            assert shown["state"] == "receiving", shown
            leg = shown["legs"][0]
            return least <= leg["bytesMoved"] < (leg["sizeBytes"] or 0)

        wait_until(look, LONG_SECONDS, f"{least} bytes of {transfer_id}")

    def sent_bytes(self) -> int:
        """Over the wide area network, from a."""
        count: int = ask(self.testbed.environment["WAN_CONTROL"])["counts"]["from_a"]["bytes"]
        return count

    def offer_file(self, name: str, size_bytes: int) -> None:
        with (self.a.send / name).open("wb") as file:
            for _ in range(size_bytes // MIB):
                file.write(os.urandom(MIB))
        os.chown(self.a.send / name, self.a.owner.uid, self.a.owner.uid)

    def offer_tree(self, name: str, files: int, size_bytes: int) -> Path:
        top = self.a.send / name
        shutil.rmtree(top, ignore_errors=True)
        for number in range(files):
            path = top / f"day {number % 40}" / f"{number} é.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(size_bytes))
        for path in (top, *top.rglob("*")):
            os.chown(path, self.a.owner.uid, self.a.owner.uid)
        return top

    def require_arrived(self, name: str) -> None:
        """Byte for byte, as plain files of the node's owner, and nothing hidden."""
        assert digests(self.arrived / name) == digests(self.a.send / name)
        assert {path.stat().st_uid for path in self.arrived.rglob("*")} == {self.b.owner.uid}
        wait_until(lambda: not self.b.hidden_files(), 60, "nothing is hidden")


def digests(top: Path) -> dict[str, str]:
    paths = [path for path in top.rglob("*") if path.is_file()] if top.is_dir() else [top]
    found = {}
    for path in paths:
        assert not path.is_symlink()
        with path.open("rb") as file:
            found[str(path.relative_to(top))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


@pytest.fixture
def road(testbed: Testbed, alices: Node, bobs: Node) -> Iterator[Road]:
    """Alice may send to a folder of bob's; in the end nobody may, the network is as it was, and both directories are empty."""
    made = Road(testbed, alices, bobs)
    made.revoke_all()
    for owner in (alices.owner, bobs.owner):
        assert owner.http.get("/nodes").status_code == 200
    made.grant()
    yield made
    ask(testbed.environment["WAN_CONTROL"], closed_ports=[])
    made.revoke_all()
    for top in (alices.send, bobs.receive):
        for path in top.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_large_file_goes_straight_over_the_wide_area(road: Road) -> None:
    road.offer_file("large.bin", 1024 * MIB)
    before = road.sent_bytes()
    transfer_id = road.begin("large.bin")
    assert road.show(transfer_id)["road"] == "direct"
    road.wait_for_bytes(transfer_id, 100 * MIB)
    assert not (road.arrived / "large.bin").exists()
    transfer = road.wait(transfer_id)
    assert transfer["state"] == "done", transfer
    road.require_arrived("large.bin")
    assert 1024 * MIB < road.sent_bytes() - before < 1.2 * 1024 * MIB
    check = road.a.owner.http.get(f"/transfers/{transfer_id}/network-check").json()
    assert check["check"]["reachable"]
    assert check["check"]["round_trip_seconds"] >= 0.05
    assert check["rates"][-1][1] == 1024 * MIB


def test_five_thousand_files_go_straight_over_the_wide_area(road: Road) -> None:
    road.offer_tree("tree", FILES, 5000)
    transfer = road.wait(road.begin("tree", archive="tar", road="direct"))
    assert transfer["state"] == "done", transfer
    assert (transfer["fileCount"], transfer["sizeBytes"]) == (FILES, FILES * 5000)
    road.require_arrived("tree")


def test_after_a_stop_only_what_is_missing_is_sent(road: Road) -> None:
    files, size = 60, 4 * MIB
    road.offer_tree("stopped", files, size)
    before = road.sent_bytes()
    transfer_id = road.begin("stopped", archive="tar", road="direct")
    road.wait_for_bytes(transfer_id, files * size // 2)
    answer = road.a.owner.http.post(f"/transfers/{transfer_id}/stop")
    assert answer.status_code == 200, answer.text
    transfer = road.wait(transfer_id)
    assert (transfer["state"], transfer["code"]) == ("failed", "stopped"), transfer
    wait_until(lambda: not road.a.rclones("rcd") or unchanged(road.sent_bytes), 60, "nothing is sent any more")
    [folder] = [path for path in road.b.receive.rglob(".stagecoach-*.part") if path.is_dir()]
    kept = {path.relative_to(folder): path.stat().st_ino for path in folder.rglob("*.bin")}
    assert kept
    assert road.a.owner.http.post(f"/transfers/{transfer_id}/retry").is_success
    transfer = road.wait(transfer_id)
    assert transfer["state"] == "done", transfer
    road.require_arrived("stopped")
    # What had arrived whole was not sent again: it is the same files, and the network has carried little twice.
    now = {path.relative_to(road.arrived / "stopped"): path.stat().st_ino for path in (road.arrived / "stopped").rglob("*.bin")}
    assert now.items() >= kept.items()
    assert road.sent_bytes() - before < files * size * 1.35


def test_after_a_stop_only_what_is_missing_of_a_large_file_is_sent(road: Road) -> None:
    road.offer_file("halved.bin", LARGE)
    before = road.sent_bytes()
    transfer_id = road.begin("halved.bin", road="direct")
    road.wait_for_bytes(transfer_id, LARGE // 2)
    assert road.a.owner.http.post(f"/transfers/{transfer_id}/stop").status_code == 200
    transfer = road.wait(transfer_id)
    assert (transfer["state"], transfer["code"]) == ("failed", "stopped"), transfer
    wait_until(lambda: unchanged(road.sent_bytes), 60, "nothing is sent any more")
    assert road.sent_bytes() - before > LARGE // 2
    assert not (road.arrived / "halved.bin").exists()
    assert road.a.owner.http.post(f"/transfers/{transfer_id}/retry").is_success
    transfer = road.wait(transfer_id)
    assert transfer["state"] == "done", transfer
    road.require_arrived("halved.bin")
    assert road.sent_bytes() - before < LARGE * 1.35


def test_a_rate_is_changed_while_it_goes(road: Road) -> None:
    files, size = 40, 4 * MIB
    road.offer_tree("capped", files, size)
    before = road.sent_bytes()
    transfer_id = road.begin("capped", archive="tar", road="direct", rateLimitBytesPerSecond=MIB)
    road.wait_for_bytes(transfer_id, 6 * MIB)
    patched = road.a.owner.http.patch(f"/transfers/{transfer_id}", json={"rateLimitBytesPerSecond": None})
    assert patched.status_code == 200, patched.text
    began = time.monotonic()
    transfer = road.wait(transfer_id)
    assert (transfer["state"], transfer["rateLimitBytesPerSecond"]) == ("done", None), transfer
    assert time.monotonic() - began < 120, "at the first rate it would have taken 150 s and more"
    road.require_arrived("capped")
    assert road.sent_bytes() - before < files * size * 1.35
    over = road.a.owner.http.patch(f"/transfers/{transfer_id}", json={"rateLimitBytesPerSecond": 4096})
    assert (over.status_code, over.json()["code"]) == (409, "wrong_state")


def unchanged(count: Callable[[], int]) -> bool:
    before = count()
    time.sleep(1.0)  # what is looked for is that nothing happens in it
    return count() - before < MIB


VICTIMS = ["sending agent", "receiving agent", "sending rclone", "receiver", "service"]


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_kill_in_the_middle_is_no_end(testbed: Testbed, road: Road, victim: str) -> None:
    road.offer_tree("killed", 40, 4 * MIB)
    transfer_id = road.begin("killed", archive="tar", road="direct")
    road.wait_for_bytes(transfer_id, 40 * MIB)
    kill(testbed, road, victim)
    transfer = road.wait(transfer_id)
    assert transfer["state"] == "done", transfer
    assert transfer["road"] == "direct"
    road.require_arrived("killed")


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_kill_in_the_middle_of_a_large_file_costs_what_was_under_way(testbed: Testbed, road: Road, victim: str) -> None:
    road.offer_file("shot.bin", LARGE)
    before = road.sent_bytes()
    transfer_id = road.begin("shot.bin", road="direct")
    road.wait_for_bytes(transfer_id, LARGE // 2)
    kill(testbed, road, victim)
    transfer = road.wait(transfer_id)
    assert (transfer["state"], transfer["road"]) == ("done", "direct"), transfer
    road.require_arrived("shot.bin")
    assert road.sent_bytes() - before < LARGE * 1.35


def kill(testbed: Testbed, road: Road, victim: str) -> None:
    """With SIGKILL. Agents and the service are started again; the rest is their affair."""
    if victim == "sending agent":
        road.a.kill_agent()
    elif victim == "receiving agent":
        road.b.kill_agent()
    elif victim == "service":
        for name in ("api", "worker"):
            os.kill(testbed.service_pid(name), signal.SIGKILL)
        testbed.start_service()
    else:
        [pid] = road.a.rclones("rcd") if victim == "sending rclone" else road.b.rclones("serve")
        os.kill(pid, signal.SIGKILL)
    if victim.endswith("agent"):
        nodes_up(testbed)


def test_where_no_road_is_open_it_arrives_by_the_staging_area_and_says_why(testbed: Testbed, road: Road) -> None:
    content = os.urandom(20 * MIB)
    road.a.offer("shut.bin", content)
    ask(testbed.environment["WAN_CONTROL"], closed_ports=[int(testbed.environment["PORT_RECEIVER"])])
    transfer_id = road.begin("shut.bin")
    assert road.show(transfer_id)["road"] == "direct"
    transfer = road.wait(transfer_id)
    assert (transfer["state"], transfer["road"], transfer["id"]) == ("done", "staged", transfer_id), transfer
    assert "10.77.0.2" in transfer["roadReason"]
    road.require_arrived("shut.bin")
    insisted = road.wait(road.begin("shut.bin", road="direct"))
    assert (insisted["state"], insisted["code"]) == ("failed", "receiver_unreachable"), insisted
    assert insisted["retryUntil"]
    assert road.a.owner.http.delete(f"/transfers/{insisted['id']}").is_success
    wait_until(lambda: not road.b.hidden_files(), 60, "nothing is hidden")


def test_a_directory_with_large_files_goes_straight(road: Road) -> None:
    top = road.offer_tree("mixed", 50, 10_000)
    for name in ("mixed/day 1/large é.bin", "mixed/other [1].bin"):
        road.offer_file(name, 150 * MIB)
    transfer = road.wait(road.begin("mixed", archive="tar", road="direct"))
    assert (transfer["state"], transfer["fileCount"]) == ("done", 52), transfer
    assert transfer["sizeBytes"] == sum(path.stat().st_size for path in top.rglob("*") if path.is_file())
    road.require_arrived("mixed")


def test_names_that_cannot_go_straight_go_by_the_staging_area(road: Road) -> None:
    top = road.offer_tree("odd", 20, 1000)
    for name in ("new\nline", "quoted ‛x"):
        (top / name).write_bytes(name.encode())
        os.chown(top / name, road.a.owner.uid, road.a.owner.uid)
    transfer = road.wait(road.begin("odd", archive="tar"))
    assert (transfer["state"], transfer["road"]) == ("done", "staged"), transfer
    assert "names" in transfer["roadReason"]
    road.require_arrived("odd")


def test_many_at_once_do_not_break_off_one_another(road: Road) -> None:
    road.a.set_parallel(4)
    road.a.offer("long.bin", os.urandom(300 * MIB))
    before = road.sent_bytes()
    long = road.begin("long.bin", road="direct")
    road.wait_for_bytes(long, 20 * MIB)
    for number in range(3):
        road.a.offer(f"short {number}.bin", os.urandom(MIB))
        transfer = road.wait(road.begin(f"short {number}.bin", road="direct"))
        assert transfer["state"] == "done", transfer
    assert road.wait(long)["state"] == "done"
    assert road.sent_bytes() - before < 1.25 * 303 * MIB
    road.require_arrived("long.bin")


def test_a_cancel_in_the_middle_leaves_the_old_file_and_nothing_else(road: Road) -> None:
    road.a.offer("cancelled.bin", os.urandom(200 * MIB))
    road.arrived.mkdir(exist_ok=True)
    os.chown(road.arrived, road.b.owner.uid, road.b.owner.uid)
    target = road.arrived / "cancelled.bin"
    target.write_bytes(b"old")
    os.chown(target, road.b.owner.uid, road.b.owner.uid)
    transfer_id = road.begin("cancelled.bin", road="direct")
    road.wait_for_bytes(transfer_id, 20 * MIB)
    assert road.a.owner.http.delete(f"/transfers/{transfer_id}").status_code == 200
    assert road.wait(transfer_id)["state"] == "cancelled"
    wait_until(lambda: not road.b.hidden_files(), 60, "nothing is hidden")
    assert target.read_bytes() == b"old"


def test_only_who_has_a_grant_sends(road: Road) -> None:
    road.a.offer("refused.bin", b"bytes")
    road.revoke_all()
    assert road.ask("refused.bin").status_code == 404
    ends = datetime.now(UTC) + timedelta(seconds=3)
    road.grant(expiresAt=ends.isoformat())
    wait_until(lambda: datetime.now(UTC) > ends, 30, "it has expired")
    assert road.ask("refused.bin").status_code == 404
    assert not (road.arrived / "refused.bin").exists()


def test_a_grant_that_was_revoked_meanwhile_refuses_the_retry(road: Road) -> None:
    road.a.offer("late.bin", os.urandom(100 * MIB))
    transfer_id = road.begin("late.bin", road="direct")
    road.wait_for_bytes(transfer_id, 10 * MIB)
    assert road.a.owner.http.post(f"/transfers/{transfer_id}/stop").status_code == 200
    road.wait(transfer_id)
    road.revoke_all()
    answer = road.a.owner.http.post(f"/transfers/{transfer_id}/retry")
    assert 400 <= answer.status_code < 500, answer.text
    assert road.a.owner.http.delete(f"/transfers/{transfer_id}").is_success
    wait_until(lambda: not road.b.hidden_files(), 60, "nothing is hidden")


def test_no_secret_is_in_an_answer_a_log_a_process_list_or_the_database(testbed: Testbed, road: Road) -> None:
    directory = Path(testbed.environment["TESTBED_ROOT"], "log")
    logs, answers = Logs(directory), []
    road.a.offer("secret.bin", os.urandom(100 * MIB))
    with Watch() as watch:
        transfer_id = road.begin("secret.bin", road="direct")
        road.wait_for_bytes(transfer_id, 10 * MIB)
        keys = [json.loads(path.read_text()) for node in (road.a, road.b) for path in (node.state / "secrets").glob("*.json")]
        assert len(keys) == 2
        database = dump(testbed.environment["DATABASE_URL"])
        for person in (road.a.owner, road.b.owner):
            for path in (f"/transfers/{transfer_id}", f"/transfers/{transfer_id}/network-check", f"/nodes/{road.a.id}/commands"):
                answers.append(person.http.get(path).text)
            answers.append(person.http.get(f"/nodes/{road.b.id}/commands").text)
        assert road.wait(transfer_id)["state"] == "done"
    written = b"".join(path.read_bytes() for path in sorted(directory.glob("stagecoach-*.log")))
    places = {
        "answer": "\n".join(answers).encode(),
        "log": written,
        "process list": b"\n".join(watch.seen),
        "database": database + dump(testbed.environment["DATABASE_URL"]),
    }
    secrets = {key["secret_access_key"] for key in keys}
    found = [
        where
        for secret in secrets
        for form in (secret.encode(), base64.b64encode(secret.encode()))
        for where, text in places.items()
        if form in text
    ]
    assert found == []
    assert logs.leaks(testbed.environment) == []
    assert [path for node in (road.a, road.b) for path in (node.state / "secrets").glob("*.json")] == []
