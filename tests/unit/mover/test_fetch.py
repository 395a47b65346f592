"""Fetching: byte-exact, or a clean failure with the old target whole."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mover.clocks import QuickClock, Stopper
from tests.unit.mover.faulty_store import PART, SIGNATURE, FaultyStore, error, hidden_files, md5, multipart_etag, some_bytes

from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import fetch

OLD = b"the old content"


def run(ticket: Any, **more: Any) -> dict[str, Any]:
    return fetch(ticket, **{"clock": QuickClock(), **more})


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 10 * PART, 25 * PART + 7])
def test_a_file_of_any_size_arrives_byte_for_byte(store: FaultyStore, tmp_path: Path, size: int) -> None:
    data = some_bytes(size)
    store.keep("object", data)
    target = tmp_path / "file"
    receipt = run(store.fetch_ticket(os.fsencode(target), size), state_directory=str(tmp_path / "state"))
    assert receipt["ok"], receipt
    assert target.read_bytes() == data
    assert receipt["size_bytes"] == receipt["bytes_moved"] == size
    assert receipt["etag"] == store.etags["object"]
    assert {"size", "multipart_etag" if store.dialect == "rgw" else "md5"} == {p["how"] for p in receipt["proved"]}
    assert json.loads((tmp_path / "state" / "receipt.json").read_text()) == receipt
    assert json.loads(store.objects["receipt"]) == receipt
    assert hidden_files(tmp_path) == []
    assert sorted(os.listdir(tmp_path / "state")) == ["receipt.json"]


def test_parts_larger_than_the_buffer_arrive_byte_for_byte(tmp_path: Path) -> None:
    data = some_bytes(5_000_000)
    with FaultyStore(part_size=2_400_000).serving() as store:
        store.keep("object", data)
        assert run(store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data)))["ok"]
    assert (tmp_path / "file").read_bytes() == data


NAMES = [
    b"with spaces",
    b'it\'s "quoted" `$(reboot)`; &',
    b"new\nline",
    b"\xff\xfe not UTF-8",
    b"-rf",
    b"x" * 255,
    b"File was successfully moved",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_posix_name_passes_unharmed(rgw: FaultyStore, tmp_path: Path, name: bytes) -> None:
    rgw.keep("object", b"content")
    path = os.fsencode(tmp_path) + b"/" + name
    assert run(rgw.fetch_ticket(path, 7))["ok"]
    assert os.listdir(os.fsencode(tmp_path)) == [name]
    with open(path, "rb") as file:
        assert file.read() == b"content"


PASSING = ["reset", "stall", "reset_inside", "stall_inside", "short", "wrong_range", "whole_object", "expire"]


@pytest.mark.parametrize("part", [1, 3, 6])
@pytest.mark.parametrize("action", PASSING)
def test_an_unverified_file_goes_another_way_and_arrives_all_the_same(
    store: FaultyStore, tmp_path: Path, action: str, part: int
) -> None:
    store.part_size = 300_000
    data = some_bytes(5 * store.part_size + 7)
    store.keep("object", data)
    store.fail("GET", action, part=part)
    ticket = store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data), verify=False)
    receipt = run(ticket, reload_ticket=lambda: store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data), verify=False))
    assert receipt["ok"], receipt
    assert [proof["how"] for proof in receipt["proved"]] == ["size"]
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_a_kernel_that_does_not_splice_from_sockets_is_done_without(
    store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(stagecoach_mover.KERNEL, "splice", fails)
    store.part_size = 300_000
    data = some_bytes(3 * store.part_size + 7)
    store.keep("object", data)
    receipt = run(store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data), verify=False))
    assert receipt["ok"], receipt
    assert receipt["retries"] == 0
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("number", [0, errno.ENOSYS, errno.EIO])
@pytest.mark.parametrize("verify", [True, False])
def test_the_disk_begins_before_all_is_there_and_need_not_be_able_to(
    store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: bool, number: int
) -> None:
    begun: list[str] = []

    def starts(descriptor: int) -> None:
        begun.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        store.hold.set()
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(stagecoach_mover.KERNEL, "start_writing_back", starts)
    data = some_bytes(3 * store.part_size + 7)
    store.keep("object", data)
    assert run(store.fetch_ticket(os.fsencode(tmp_path / "little"), len(data), verify=verify))["ok"]
    assert begun == []

    monkeypatch.setattr(stagecoach_mover, "WRITE_BACK_BYTES", len(data) // 2)
    monkeypatch.setenv("STAGECOACH_STALL_SECONDS", "20")
    store.fail("GET", "hold", part=3)  # until the disk has begun
    receipt = run(store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data), verify=verify))
    assert receipt["ok"], receipt
    assert {Path(name).parent for name in begun} == {tmp_path}
    assert (tmp_path / "file").read_bytes() == data


def test_the_system_can_start_writing_back(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"x" * 10_000)
        stagecoach_mover.KERNEL.start_writing_back(file.fileno())
    with (tmp_path / "file").open("rb") as file, pytest.raises(OSError, match="descriptor"):
        stagecoach_mover.KERNEL.start_writing_back(file.fileno() + 1000)


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "no_space"), (errno.EDQUOT, "no_space"), (errno.EIO, "mover_error")])
def test_a_disk_that_fails_under_a_splice_is_not_the_stores_fault(
    store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    splice = stagecoach_mover.KERNEL.splice

    def fails_at_the_disk(source: int, sink: int, offset: Any, size_bytes: int) -> int:
        if offset is not None:
            raise OSError(number, os.strerror(number))
        return splice(source, sink, offset, size_bytes)

    monkeypatch.setattr(stagecoach_mover.KERNEL, "splice", fails_at_the_disk)
    store.part_size = 300_000
    data = some_bytes(3 * store.part_size + 7)
    store.keep("object", data)
    receipt = run(store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data), verify=False))
    assert receipt["code"] == code, receipt
    assert ("quota" in receipt["message"]) == (number == errno.EDQUOT)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("part", [1, 3, 6])
@pytest.mark.parametrize("action", PASSING)
def test_a_fault_that_passes_costs_a_retry_and_not_a_byte(store: FaultyStore, tmp_path: Path, action: str, part: int) -> None:
    data = some_bytes(5 * PART + 7)
    store.keep("object", data)
    store.fail("GET", action, part)
    path = os.fsencode(tmp_path / "file")
    again = store.fetch_ticket
    receipt = run(again(path, len(data)), reload_ticket=lambda: again(path, len(data)))
    assert receipt["ok"], receipt
    assert receipt["retries"] >= 1
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("status", [429, 500, 502, 503])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_an_overloaded_store_is_asked_again_with_growing_pauses(
    rgw: FaultyStore, tmp_path: Path, method: str, status: int
) -> None:
    rgw.keep("object", b"x" * 10)
    rgw.fail(method, "status", times=3, status=status, body=error("SlowDown"))
    clock = QuickClock()
    receipt = run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 10), clock=clock)
    assert receipt["ok"]
    assert receipt["retries"] == 3
    assert clock.pauses == [1, 2, 4]


def test_a_broken_range_continues_where_it_broke(tmp_path: Path) -> None:
    data = some_bytes(4 * 1024 * 1024)
    with FaultyStore(part_size=len(data)).serving() as store:
        store.keep("object", data)
        store.fail("GET", "short", 1)
        receipt = run(store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data)))
    assert receipt["ok"]
    assert receipt["bytes_moved"] == len(data)
    assert (tmp_path / "file").read_bytes() == data


FINAL = [
    ("HEAD", {"action": "status", "status": 404}, "object_missing", 1),
    ("HEAD", {"action": "status", "status": 403}, "store_refused", 1),
    ("GET", {"action": "status", "status": 404, "body": error("NoSuchKey")}, "object_missing", 1),
    ("GET", {"action": "status", "status": 400, "body": error("InvalidArgument")}, "store_refused", 1),
    ("GET", {"action": "status", "status": 403, "body": error("SignatureDoesNotMatch")}, "store_refused", 1),
    ("GET", {"action": "expire"}, "ticket_expired", 1),
    ("GET", {"action": "whole_object"}, "store_refused", 99),
    ("GET", {"action": "wrong_bytes"}, "digest_mismatch", 99),
    ("GET", {"action": "other_object"}, "digest_mismatch", 99),
    ("GET", {"action": "reset"}, "store_unreachable", 99),
    ("HEAD", {"action": "reset"}, "store_unreachable", 99),
    ("GET", {"action": "status", "status": 503}, "store_unreachable", 99),
]


@pytest.mark.parametrize("part", [1, 3, 6])
@pytest.mark.parametrize(("method", "fault", "code", "times"), FINAL)
def test_a_fault_that_stays_fails_cleanly_and_leaves_the_old_target_whole(
    rgw: FaultyStore, tmp_path: Path, method: str, fault: dict[str, Any], code: str, times: int, part: int
) -> None:
    target = tmp_path / "file"
    target.write_bytes(OLD)
    data = some_bytes(5 * PART + 7)
    rgw.keep("object", data)
    rgw.fail(method, part=part if method == "GET" else None, times=times, **fault)
    receipt = run(rgw.fetch_ticket(os.fsencode(target), len(data)))
    assert (receipt["ok"], receipt["code"]) == (False, code), receipt
    assert receipt["proved"] == []
    assert target.read_bytes() == OLD
    assert hidden_files(tmp_path) == []
    assert SIGNATURE not in json.dumps(receipt)
    assert "://" not in receipt["message"]


def test_one_spoiled_part_is_healed_by_fetching_everything_once_more(store: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(5 * PART)
    store.keep("object", data)
    store.fail("GET", "wrong_bytes", 3)
    receipt = run(store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data)))
    assert receipt["ok"]
    assert receipt["bytes_moved"] == 2 * len(data)
    assert (tmp_path / "file").read_bytes() == data


def test_an_object_of_another_size_is_refused(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"12345")
    assert run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 6))["code"] == "size_mismatch"


def test_an_object_that_is_not_the_one_the_service_saw_is_refused(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"12345")
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 5)
    ticket["object"]["etag"] = '"' + "0" * 32 + '-1"'
    assert run(ticket)["code"] == "digest_mismatch"
    ticket["object"]["etag"] = f'"{rgw.etags["object"]}"'
    assert run(ticket)["ok"]


def test_a_store_without_etags_is_held_to_the_one_in_the_ticket(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * PART)
    rgw.keep("object", data)
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), len(data))
    ticket["object"]["etag"] = rgw.etags["object"]
    rgw.etags["object"] = ""
    rgw.headers["Last-Modified"] = "Sat, 21 Nov 2026 21:00:00 GMT"
    assert interrupted(rgw, ticket, tmp_path / "state", 4)["code"] == "interrupted"
    receipt = run(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["ok"], receipt
    assert receipt["bytes_resumed"] == 3 * PART
    assert {"how": "multipart_etag", "value": ticket["object"]["etag"]} in receipt["proved"]
    rgw.keep("object", bytes(reversed(data)))
    rgw.etags["object"] = ""
    assert run(ticket)["code"] == "digest_mismatch"
    assert (tmp_path / "file").read_bytes() == data


def test_a_plain_md5_in_the_store_and_a_multipart_etag_in_the_ticket_are_both_compared(tmp_path: Path) -> None:
    data = some_bytes(6 * PART)
    with FaultyStore(dialect="rclone").serving() as store:
        store.keep("object", data)
        ticket = store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data))
        ticket["object"]["etag"] = multipart_etag(data, PART)
        receipt = run(ticket)
    assert {"size", "md5", "multipart_etag"} == {p["how"] for p in receipt["proved"]}


def test_digests_of_the_client_are_compared(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(2 * PART)
    rgw.keep("object", data)
    good = {"sha256": hashlib.sha256(data).hexdigest(), "md5": md5(data)}
    receipt = run(rgw.fetch_ticket(os.fsencode(tmp_path / "good"), len(data), digests=good))
    assert {"sha256", "md5", "size", "multipart_etag"} == {p["how"] for p in receipt["proved"]}
    bad = {"sha256": "0" * 64}
    receipt = run(rgw.fetch_ticket(os.fsencode(tmp_path / "bad"), len(data), digests=bad))
    assert receipt["code"] == "digest_mismatch"
    assert not (tmp_path / "bad").exists()


def test_an_etag_that_is_no_md5_because_of_a_key_service_is_not_compared(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"12345")
    rgw.etags["object"] = "0" * 32
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 5)
    assert run(ticket)["code"] == "digest_mismatch"
    rgw.headers["x-amz-server-side-encryption"] = "aws:kms"
    receipt = run(ticket)
    assert receipt["ok"]
    assert [p["how"] for p in receipt["proved"]] == ["size"]


# --- the disk


def test_the_old_target_keeps_its_permissions_and_a_new_one_follows_the_umask(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"new")
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(OLD)
    old.chmod(0o640)
    umask = os.umask(0o027)
    try:
        assert run(rgw.fetch_ticket(os.fsencode(old), 3))["ok"]
        assert run(rgw.fetch_ticket(os.fsencode(new), 3))["ok"]
    finally:
        os.umask(umask)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (old, new)] == [0o640, 0o640]
    old.chmod(0o604)
    assert run(rgw.fetch_ticket(os.fsencode(old), 3))["ok"]
    assert stat.S_IMODE(old.stat().st_mode) == 0o604


def test_paths_that_cannot_hold_the_file_are_named_as_such(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"new")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    os.mkfifo(tmp_path / "fifo")
    codes = {
        "directory": "target_is_directory",
        "link": "target_is_directory",
        "directory/": "target_is_directory",
        "absent/file": "target_missing_directory",
        "fifo/file": "target_missing_directory",
        "fifo": "permission_denied",
    }
    for name, code in codes.items():
        assert run(rgw.fetch_ticket(os.fsencode(tmp_path) + b"/" + name.encode(), 3))["code"] == code, name


def test_a_planted_link_by_the_hidden_name_is_not_followed(rgw: FaultyStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    (tmp_path / ".stagecoach-t1.part").symlink_to(victim)
    rgw.keep("object", b"new")
    assert run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3))["ok"]
    assert victim.read_bytes() == OLD
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_named_as_such(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"new")
    tmp_path.chmod(0o500)
    try:
        assert run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3))["code"] == "permission_denied"
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("ENOSPC", "Free space there and retry, or choose another directory."),
        ("EDQUOT", "Your quota there is used up: remove what you do not need and retry"),
        ("EFBIG", "Files of this size are not allowed there"),
        ("EACCES", "Give yourself the right and retry, or choose another directory."),
        ("EROFS", "The file system is read-only there"),
        ("ENOENT", "Make it again and retry, or choose another."),
    ],
)
def test_a_disk_without_room_fails_before_the_first_byte(
    rgw: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, words: str
) -> None:
    def full(descriptor: int, size_bytes: int) -> None:
        raise OSError(getattr(errno, number), "full")

    monkeypatch.setattr(stagecoach_mover, "reserve", full)
    target = tmp_path / "file"
    target.write_bytes(OLD)
    rgw.keep("object", b"new")
    receipt = run(rgw.fetch_ticket(os.fsencode(target), 3))
    others = {"EACCES": "permission_denied", "EROFS": "permission_denied", "ENOENT": "target_missing_directory"}
    assert receipt["code"] == others.get(number, "no_space")
    assert words in receipt["message"]
    assert rgw.count("GET") == 0
    assert target.read_bytes() == OLD
    assert hidden_files(tmp_path) == []


def test_room_is_taken_at_once_and_impossible_sizes_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        stagecoach_mover.reserve(file.fileno(), 300_000)
        found = os.fstat(file.fileno())
        assert found.st_size == 300_000
        with pytest.raises(OSError):
            stagecoach_mover.reserve(file.fileno(), 2**60)


# --- again


def interrupted(store: FaultyStore, ticket: dict[str, Any], state: Path, part: int) -> dict[str, Any]:
    stop = threading.Event()
    store.fail("GET", "reset", part, times=2)  # the first is taken for an idle line that was closed
    return fetch(ticket, str(state), stop=stop, clock=Stopper(stop), concurrency=1)


def test_a_second_run_continues_and_moves_no_finished_part_again(store: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * PART)
    store.keep("object", data)
    ticket = store.fetch_ticket(os.fsencode(tmp_path / "file"), len(data))
    receipt = interrupted(store, ticket, tmp_path / "state", 4)
    assert receipt["code"] == "interrupted", receipt
    assert hidden_files(tmp_path) == [".stagecoach-t1.part"]
    assert stat.S_IMODE((tmp_path / ".stagecoach-t1.part").stat().st_mode) == 0o600
    receipt = run(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["ok"]
    assert (receipt["bytes_resumed"], receipt["bytes_moved"]) == (3 * PART, 3 * PART)
    assert (tmp_path / "file").read_bytes() == data
    assert store.count("GET", part=1) == 1


def test_a_finished_part_that_the_disk_lost_is_fetched_again(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * PART)
    rgw.keep("object", data)
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), len(data))
    interrupted(rgw, ticket, tmp_path / "state", 4)
    with (tmp_path / ".stagecoach-t1.part").open("r+b") as file:
        file.seek(PART)
        file.write(b"\0\0\0\0")
    receipt = run(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["ok"]
    assert receipt["bytes_resumed"] == 2 * PART
    assert (tmp_path / "file").read_bytes() == data


def test_a_replaced_object_is_fetched_afresh(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", some_bytes(6 * PART))
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 6 * PART)
    interrupted(rgw, ticket, tmp_path / "state", 4)
    data = bytes(reversed(some_bytes(6 * PART)))
    rgw.keep("object", data)
    receipt = run(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["ok"]
    assert receipt["bytes_resumed"] == 0
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("journal", [b"", b"{", b"[]", b'{"parts": 7}', b'{"transfer_id": "t1", "parts": {"x": 1}}'])
def test_a_spoiled_journal_is_as_good_as_none(rgw: FaultyStore, tmp_path: Path, journal: bytes) -> None:
    (tmp_path / "journal.json").write_bytes(journal)
    rgw.keep("object", b"new")
    assert run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3), state_directory=str(tmp_path))["ok"]


def test_without_a_state_directory_nothing_is_left_after_an_interruption(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", some_bytes(3 * PART))
    stop = threading.Event()
    rgw.fail("GET", "reset", 2, times=2)
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3 * PART)
    assert fetch(ticket, stop=stop, clock=Stopper(stop))["code"] == "interrupted"
    assert os.listdir(tmp_path) == []


def test_a_run_after_the_rename_is_a_success_at_once(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"new")
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3)
    first = run(ticket, state_directory=str(tmp_path / "state"))
    rgw.requests.clear()
    del rgw.objects["object"], rgw.objects["receipt"]
    assert run(ticket, state_directory=str(tmp_path / "state")) == first
    assert json.loads(rgw.objects["receipt"]) == first
    assert rgw.count("GET") == rgw.count("HEAD") == 0


def test_two_movers_of_one_transfer_do_not_disturb_each_other(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(4 * PART)
    rgw.keep("object", data)
    rgw.fail("GET", "hold", 2)
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), len(data))
    receipts: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: receipts.append(run(ticket)))
    first.start()
    assert rgw.waiting.wait(5)
    second = run(ticket, state_directory=str(tmp_path / "state"))
    assert rgw.count("PUT", "receipt") == 0
    rgw.hold.set()
    first.join()
    assert second["code"] == "another_mover"
    assert receipts[0]["ok"], receipts
    assert (tmp_path / "file").read_bytes() == data


# --- waiting, progress, tickets


def test_a_job_that_waits_fetches_the_object_when_it_comes(rgw: FaultyStore, tmp_path: Path) -> None:
    class Arrival(QuickClock):
        def pause(self, seconds: float, halt: threading.Event) -> None:
            super().pause(seconds, halt)
            if len(self.pauses) == 12:
                rgw.keep("object", b"new")

    clock = Arrival()
    wait = {"until_epoch_seconds": clock.wall() + 3600}
    receipt = run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3, wait=wait), clock=clock)
    assert receipt["ok"]
    assert clock.pauses[0] == 1
    assert clock.pauses[-1] == 30


def test_a_job_that_waits_in_vain_fails_at_its_deadline(rgw: FaultyStore, tmp_path: Path) -> None:
    clock = QuickClock()
    wait = {"until_epoch_seconds": clock.wall() + 100}
    receipt = run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3, wait=wait), clock=clock)
    assert receipt["code"] == "wait_timed_out"
    assert 99 < sum(clock.pauses) < 101


def test_progress_is_told_and_its_failures_are_nobodys_concern(
    rgw: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stagecoach_mover, "PROGRESS_SECONDS", 0.02)
    data = some_bytes(40 * PART)
    rgw.keep("object", data)
    rgw.fail("GET", "stall", 20)
    told: list[dict[str, Any]] = []

    def listen(document: dict[str, Any]) -> None:
        told.append(document)
        raise RuntimeError("a listener's own fault")

    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), len(data))
    assert run(ticket, on_progress=listen)["ok"]
    assert told[-1]["phase"] == "ended"
    assert told[-1]["bytes_done"] == told[-1]["size_bytes"] == len(data)
    done = [document["bytes_done"] for document in told]
    assert done == sorted(done)
    assert json.loads(rgw.objects["progress"])["transfer_id"] == "t1"
    ticket["progress_url"] = "http://127.0.0.1:9/nobody"
    assert run(ticket)["ok"]


BAD = [
    {"version": 2},
    {"transfer_id": "../../etc"},
    {"transfer_id": "A"},
    {"kind": "put"},
    {"path_base64": "cmVsYXRpdmU="},
    {"path_base64": "L3g\n="},
    {"path_base64": "L3gAeQ=="},
    {"size_bytes": -1},
    {"size_bytes": True},
    {"size_bytes": "3"},
    {"part_size_bytes": 0},
    {"part_size_bytes": 1, "size_bytes": 10**12},
    {"object": None},
    {"object": {"get_url": "file:///etc/passwd", "head_url": "http://x/"}},
    {"object": {"get_url": "http://x/ HTTP/1.1\r\nX: y", "head_url": "http://x/"}},
    {"digests": {"md5": "x"}},
    {"wait": {}},
    {"concurrency": 0},
    {"receipt_url": 7},
]


@pytest.mark.parametrize("change", BAD, ids=json.dumps)
def test_a_ticket_that_is_not_understood_is_refused(rgw: FaultyStore, tmp_path: Path, change: dict[str, Any]) -> None:
    receipt = run({**rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3), **change})
    assert receipt["code"] == "ticket_unreadable"
    assert rgw.count("GET") == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ticket", [None, [], "x", {}])
def test_what_is_no_ticket_at_all_is_refused(ticket: Any) -> None:
    assert run(ticket)["code"] == "ticket_unreadable"


@pytest.mark.parametrize("status", [400, 403])
def test_many_expiries_are_met_with_one_new_ticket_each(rgw: FaultyStore, tmp_path: Path, status: int) -> None:
    rgw.expired_status = status
    data = some_bytes(20 * PART)
    rgw.keep("object", data)
    for part in (3, 9, 15):
        rgw.fail("GET", "expire", part)
    path = os.fsencode(tmp_path / "file")
    reloads: list[int] = []

    def reload() -> dict[str, Any]:
        reloads.append(1)
        return rgw.fetch_ticket(path, len(data))

    ticket = rgw.fetch_ticket(path, len(data))
    receipt = run(ticket, reload_ticket=reload, concurrency=4)
    assert receipt["ok"], receipt
    assert len(reloads) <= 6
    assert (tmp_path / "file").read_bytes() == data
    assert json.loads(rgw.objects["receipt"]) == receipt


def test_a_renewed_ticket_must_be_of_the_same_transfer(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", some_bytes(5 * PART))
    rgw.fail("GET", "expire", 2)
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 5 * PART)
    receipt = run(ticket, reload_ticket=lambda: rgw.fetch_ticket(os.fsencode(tmp_path / "other"), 5 * PART))
    assert receipt["code"] == "ticket_unreadable"


def test_nothing_listening_is_store_unreachable(tmp_path: Path) -> None:
    ticket = FaultyStore(port=9).fetch_ticket(os.fsencode(tmp_path / "file"), 3)
    receipt = run(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["code"] == "store_unreachable"
    assert receipt["retries"] >= 7


def test_a_plain_proxy_is_used_and_no_proxy_is_honoured(
    rgw: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgw.keep("object", b"new")
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3)
    text = json.dumps(ticket).replace(f"127.0.0.1:{rgw.port}", "store.invalid")
    monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{rgw.port}")
    assert run(json.loads(text))["ok"]
    monkeypatch.setenv("no_proxy", "store.invalid")
    assert run(json.loads(text))["code"] == "store_unreachable"


def test_redaction_leaves_no_address_no_secret_and_no_phrase_of_success() -> None:
    text = stagecoach_mover.redact(
        f"GET https://user:pw@host/b/k?X-Amz-Signature={SIGNATURE} /k?a=b&c=d Signature={SIGNATURE} "
        "token: abc File was successfully moved"
    )
    for secret in (SIGNATURE, "host", "pw", "a=b", "abc", "successfully"):
        assert secret not in text
    assert text.startswith("GET")


def test_the_unforeseen_becomes_a_receipt_without_secrets(
    rgw: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, line: object, part: object) -> None:
        raise KeyError(rgw.url("object"))

    monkeypatch.setattr(stagecoach_mover.Fetch, "_fetch_part", broken)
    rgw.keep("object", b"new")
    receipt = run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3))
    assert receipt["code"] == "mover_error"
    assert "KeyError" in receipt["message"]
    assert SIGNATURE not in json.dumps(receipt)
    assert os.listdir(tmp_path) == []


def with_root(ticket: dict[str, Any], root: Path) -> dict[str, Any]:
    return {**ticket, "root_base64": base64.b64encode(os.fsencode(root)).decode()}


def test_a_directory_that_became_a_link_elsewhere_is_not_followed(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"content")
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "project").symlink_to(tmp_path / "elsewhere")
    ticket = with_root(rgw.fetch_ticket(os.fsencode(tmp_path / "root/project/file"), 7), tmp_path / "root")
    receipt = run(ticket)
    assert (receipt["ok"], receipt["code"]) == (False, "target_missing_directory")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_root_that_is_itself_a_link_on_this_node_is_followed(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"content")
    (tmp_path / "mounted" / "project").mkdir(parents=True)
    (tmp_path / "root").symlink_to(tmp_path / "mounted")
    ticket = with_root(rgw.fetch_ticket(os.fsencode(tmp_path / "root/project/file"), 7), tmp_path / "root")
    assert run(ticket)["ok"]
    assert (tmp_path / "mounted/project/file").read_bytes() == b"content"


def test_a_link_at_the_target_is_replaced_and_lends_no_mode(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"content")
    (tmp_path / "program").write_bytes(b"#!")
    (tmp_path / "program").chmod(0o777)
    (tmp_path / "file").symlink_to(tmp_path / "program")
    assert run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 7))["ok"]
    assert not (tmp_path / "file").is_symlink()
    assert not (tmp_path / "file").stat().st_mode & 0o111
    assert (tmp_path / "program").read_bytes() == b"#!"


def test_a_pipe_in_the_state_directory_stops_nobody(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", b"content")
    (tmp_path / "state").mkdir()
    for name in ("journal.json", "receipt.json"):
        os.mkfifo(tmp_path / "state" / name)
    receipt = run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 7), state_directory=str(tmp_path / "state"))
    assert receipt["ok"], receipt


def test_a_journal_says_nothing_of_a_new_file_by_the_number_of_the_old(rgw: FaultyStore, tmp_path: Path) -> None:
    data = some_bytes(6 * PART)
    rgw.keep("object", data)
    ticket, state = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), len(data), verify=False), str(tmp_path / "state")

    def stopped_at(part: int) -> str:
        stop = threading.Event()
        rgw.fail("GET", "reset", part, times=2)
        with pytest.MonkeyPatch.context() as patch:
            # Disks that give a number again at once are not at hand everywhere.
            patch.setattr(stagecoach_mover.TargetFile, "inode", lambda target: 7)
            return str(fetch(ticket, state, stop=stop, clock=Stopper(stop), concurrency=1)["code"])

    assert stopped_at(5) == "interrupted"
    (tmp_path / ".stagecoach-t1.part").unlink()
    with pytest.MonkeyPatch.context() as patch:  # a run that is killed before its first journal
        patch.setattr(stagecoach_mover.Leg, "save_journal", lambda leg: None)
        assert stopped_at(2) == "interrupted"
    journal = tmp_path / "state" / "journal.json"
    if journal.exists():
        inode = (tmp_path / ".stagecoach-t1.part").stat().st_ino
        journal.write_text(json.dumps({**json.loads(journal.read_text()), "inode": inode}))
    assert run(ticket, state_directory=state)["ok"]
    assert (tmp_path / "file").read_bytes() == data


def test_the_receipt_of_a_failure_is_on_the_disk_before_a_word_goes_to_the_store(
    rgw: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, Any]] = []
    end = stagecoach_mover.Reporter.end

    def look_and_end(reporter: stagecoach_mover.Reporter) -> None:
        found.append(json.loads((tmp_path / "state" / "receipt.json").read_text()))
        end(reporter)

    monkeypatch.setattr(stagecoach_mover.Reporter, "end", look_and_end)
    run(rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 4), state_directory=str(tmp_path / "state"))
    assert [receipt["code"] for receipt in found] == ["object_missing"]


def test_who_was_told_to_stop_does_not_wait_long_for_a_store_that_is_gone(
    rgw: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGECOACH_STALL_SECONDS", "60")
    rgw.keep("object", some_bytes(3 * PART))
    rgw.fail("GET", "reset", 2, times=2)
    connect, patience = http.client.HTTPConnection.connect, []

    def noted(connection: http.client.HTTPConnection) -> None:
        patience.append(connection.timeout)
        connect(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", noted)
    stop = threading.Event()
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), 3 * PART)
    assert fetch(ticket, str(tmp_path / "state"), stop=stop, clock=Stopper(stop), concurrency=1)["code"] == "interrupted"
    assert patience[0] == 20
    assert patience[-2:] == [stagecoach_mover.HURRIED_CONNECTING_SECONDS] * 2  # the progress, the receipt
