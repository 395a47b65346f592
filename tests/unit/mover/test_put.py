"""Putting: the object is the file byte for byte, or the upload is not completed."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mover import faulty_store
from tests.unit.mover.clocks import QuickClock, Stopper
from tests.unit.mover.faulty_store import PART, SIGNATURE, FaultyStore, error, md5, multipart_etag, part_crc32, some_bytes

from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import put


def run(ticket: dict[str, Any], **more: Any) -> dict[str, Any]:
    return put(ticket, **{"clock": QuickClock(), **more})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(some_bytes(5 * PART + 7))
    return path


def ticket_for(store: FaultyStore, source: Path, **more: Any) -> dict[str, Any]:
    return store.put_ticket(os.fsencode(source), source.stat().st_size, **more)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 10 * PART, 25 * PART + 7])
def test_a_file_of_any_size_becomes_an_object_byte_for_byte(store: FaultyStore, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(size))
    receipt = run(ticket_for(store, source), state_directory=str(tmp_path / "state"))
    assert receipt["ok"], receipt
    assert store.objects["object"] == some_bytes(size)
    assert receipt["size_bytes"] == receipt["bytes_moved"] == size
    assert receipt["etag"] == store.etags["object"]
    assert {"size", "part_md5"} <= {p["how"] for p in receipt["proved"]}
    if store.dialect == "rgw":
        assert {"how": "multipart_etag", "value": multipart_etag(some_bytes(size), PART)} in receipt["proved"]
    assert json.loads(store.objects["receipt"]) == receipt
    assert sorted(os.listdir(tmp_path / "state")) == ["put.lock", "receipt.json"]


@pytest.mark.parametrize("size", [0, 1, PART, 5 * PART + 7])
def test_the_crc32_of_each_part_is_in_the_receipt_where_it_is_wanted(rgw: FaultyStore, tmp_path: Path, size: int) -> None:
    source, data = tmp_path / "source", some_bytes(size)
    source.write_bytes(data)
    assert "part_crc32" not in run(ticket_for(rgw, source))
    assert run(ticket_for(rgw, source, part_crc32=True))["part_crc32"] == part_crc32(data, PART)


def test_the_crc32_of_what_was_sent_before_an_interruption_is_kept(rgw: FaultyStore, source: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    rgw.fail("PUT", "status", part=6, times=100, status=503)
    ticket = ticket_for(rgw, source, part_crc32=True)
    broken = run(ticket, state_directory=state)
    assert (broken["ok"], "part_crc32" in broken) == (False, False)
    rgw.faults.clear()
    receipt = run(ticket, state_directory=state)
    assert receipt["bytes_resumed"] == 5 * PART
    assert receipt["part_crc32"] == part_crc32(source.read_bytes(), PART)


def test_parts_larger_than_the_buffer_arrive_byte_for_byte(tmp_path: Path) -> None:
    data = some_bytes(5_000_000)
    (tmp_path / "source").write_bytes(data)
    with FaultyStore(part_size=2_400_000).serving() as store:
        assert run(ticket_for(store, tmp_path / "source"))["ok"]
        assert store.objects["object"] == data


@pytest.mark.parametrize("name", [b"a b", b"'\"`$(x)`&;", b"new\nline", b"\xff\xfe", b"-rf", b"x" * 255])
def test_any_posix_name_can_be_a_source(rgw: FaultyStore, tmp_path: Path, name: bytes) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    with open(path, "wb") as file:
        file.write(b"content")
    assert run(rgw.put_ticket(path, 7))["ok"]
    assert rgw.objects["object"] == b"content"


PASSING: list[dict[str, Any]] = [
    {"action": "reset"},
    {"action": "stall"},
    {"action": "reset_inside"},
    {"action": "lost_answer"},
    {"action": "wrong_bytes"},
    {"action": "expire"},
    {"action": "status", "status": 200, "body": error("InternalError")},
    {"action": "status", "status": 503, "body": error("SlowDown")},
    {"action": "status", "status": 400, "body": error("RequestTimeout")},
]


@pytest.mark.parametrize("part", [1, 3, 6])
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault['action']}-{fault.get('status', '')}")
def test_a_part_that_failed_is_sent_again_whole(store: FaultyStore, source: Path, fault: dict[str, Any], part: int) -> None:
    store.fail("PUT", part=part, **fault)
    receipt = run(ticket_for(store, source), reload_ticket=lambda: ticket_for(store, source))
    assert receipt["ok"], receipt
    assert receipt["retries"] >= 1
    assert store.objects["object"] == source.read_bytes()


def test_a_refusal_in_the_middle_of_a_large_body_is_heard(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(8_000_000))
    with FaultyStore(part_size=8_000_000).serving() as store:
        store.fail("PUT", "refuse_inside", status=403, body=error("AccessDenied", "Request has expired"))
        assert run(ticket_for(store, source))["code"] == "ticket_expired"


FINAL: list[tuple[str, dict[str, Any], str, int]] = [
    ("PUT", {"action": "reset"}, "store_unreachable", 99),
    ("PUT", {"action": "status", "status": 503}, "store_unreachable", 99),
    ("PUT", {"action": "wrong_bytes"}, "digest_mismatch", 99),
    ("PUT", {"action": "expire"}, "ticket_expired", 1),
    ("PUT", {"action": "status", "status": 501, "body": error("NotImplemented")}, "store_refused", 1),
    ("PUT", {"action": "status", "status": 404, "body": error("NoSuchUpload")}, "store_refused", 1),
    ("POST", {"action": "status", "status": 200, "body": error("InvalidPart")}, "store_refused", 1),
    ("POST", {"action": "status", "status": 400, "body": error("EntityTooSmall")}, "store_refused", 1),
    ("POST", {"action": "status", "status": 404, "body": error("NoSuchUpload")}, "store_refused", 1),
    ("POST", {"action": "status", "status": 200, "body": error("InternalError")}, "store_unreachable", 99),
    ("HEAD", {"action": "status", "status": 404}, "store_refused", 1),
]


@pytest.mark.parametrize("part", [1, 3, 6])
@pytest.mark.parametrize(("method", "fault", "code", "times"), FINAL)
def test_a_fault_that_stays_fails_with_its_code_and_without_secrets(
    rgw: FaultyStore, source: Path, method: str, fault: dict[str, Any], code: str, times: int, part: int
) -> None:
    rgw.fail(method, part=part if method == "PUT" else None, times=times, **fault)
    receipt = run(ticket_for(rgw, source))
    assert (receipt["ok"], receipt["code"]) == (False, code), receipt
    assert SIGNATURE not in json.dumps(receipt)
    assert "://" not in receipt["message"]
    assert rgw.completed == (1 if method == "HEAD" else 0)


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "reset"},
        {"action": "status", "status": 500},
        {"action": "status", "status": 200, "body": error("InternalError")},
        {"action": "expire"},
        {"action": "lost_answer"},
    ],
)
def test_completing_survives_what_passes_and_a_lost_answer(store: FaultyStore, source: Path, fault: dict[str, Any]) -> None:
    store.fail("POST", **fault)
    receipt = run(ticket_for(store, source), reload_ticket=lambda: ticket_for(store, source))
    assert receipt["ok"], receipt
    assert store.completed == 1
    assert store.objects["object"] == source.read_bytes()


@pytest.mark.parametrize("size", [5 * PART + 7, 6])
def test_an_unknown_upload_with_another_object_in_its_place_is_no_success(store: FaultyStore, source: Path, size: int) -> None:
    store.keep("object", b"x" * size)
    store.completed = 1
    assert run(ticket_for(store, source))["code"] == ("size_mismatch" if size == 6 else "digest_mismatch")


def test_parts_are_sent_in_ascending_order(rgw: FaultyStore, source: Path) -> None:
    assert run(ticket_for(rgw, source), concurrency=1)["ok"]
    assert [r.part for r in rgw.requests if r.method == "PUT" and r.key == "object"] == [1, 2, 3, 4, 5, 6]


def test_etags_that_are_no_md5_are_not_compared(rgw: FaultyStore, source: Path) -> None:
    rgw.headers["x-amz-server-side-encryption-customer-algorithm"] = "AES256"
    receipt = run(ticket_for(rgw, source))
    assert receipt["ok"]
    assert [p["how"] for p in receipt["proved"]] == ["size"]


def test_digests_of_the_client_are_compared_before_the_upload_is_completed(rgw: FaultyStore, source: Path) -> None:
    data = source.read_bytes()
    assert run(ticket_for(rgw, source, digests={"md5": "0" * 32}))["code"] == "digest_mismatch"
    assert rgw.completed == 0
    good = {"sha256": hashlib.sha256(data).hexdigest(), "md5": md5(data)}
    assert run(ticket_for(rgw, source, digests=good))["ok"]


# --- the source


def test_a_source_that_is_not_a_readable_regular_file_is_named_as_such(rgw: FaultyStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("absent", "fifo", "", "fifo/file"):
        assert run(rgw.put_ticket(os.fsencode(tmp_path / name), 3))["code"] == "source_missing", name
    (tmp_path / "file").write_bytes(b"1234")
    assert run(rgw.put_ticket(os.fsencode(tmp_path / "file"), 3))["code"] == "source_changed"
    assert rgw.count("PUT") == 0


def change_touched(source: Path) -> None:
    os.utime(source, ns=(1, 1))


def change_grown(source: Path) -> None:
    with source.open("ab") as file:
        file.write(b"more")


def change_cut(source: Path) -> None:
    os.truncate(source, PART)


def change_replaced(source: Path) -> None:
    other = source.with_name("other")
    other.write_bytes(source.read_bytes())
    found = source.stat()
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(source)


def change_removed(source: Path) -> None:
    source.unlink()


@pytest.mark.parametrize("change", [change_touched, change_grown, change_cut, change_replaced, change_removed])
def test_a_source_that_changes_while_it_is_read_is_not_uploaded(rgw: FaultyStore, source: Path, change: Any) -> None:
    class Meddler(QuickClock):
        def pause(self, seconds: float, halt: threading.Event) -> None:
            change(source)

    rgw.fail("PUT", "status", 2, status=503)
    receipt = run(ticket_for(rgw, source), clock=Meddler(), concurrency=1)
    assert receipt["code"] == "source_changed", receipt
    assert rgw.completed == 0


# --- again


def interrupted(store: FaultyStore, ticket: dict[str, Any], state: Path, part: int) -> dict[str, Any]:
    stop = threading.Event()
    store.fail("PUT", "status", part, status=503)
    return put(ticket, str(state), stop=stop, clock=Stopper(stop), concurrency=1)


def test_a_second_run_sends_no_finished_part_again(store: FaultyStore, source: Path, tmp_path: Path) -> None:
    ticket = ticket_for(store, source)
    assert interrupted(store, ticket, tmp_path / "state", 4)["code"] == "interrupted"
    receipt = run(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["ok"], receipt
    assert receipt["bytes_resumed"] == 3 * PART
    assert [store.count("PUT", part=part) for part in range(1, 7)] == [1, 1, 1, 2, 1, 1]
    assert store.objects["object"] == source.read_bytes()


def test_a_source_that_changed_between_two_runs_is_not_uploaded(rgw: FaultyStore, source: Path, tmp_path: Path) -> None:
    ticket = ticket_for(rgw, source)
    interrupted(rgw, ticket, tmp_path / "state", 4)
    change_touched(source)
    assert run(ticket, state_directory=str(tmp_path / "state"))["code"] == "source_changed"
    assert rgw.completed == 0


def test_a_run_after_the_end_is_a_success_at_once(rgw: FaultyStore, source: Path, tmp_path: Path) -> None:
    ticket = ticket_for(rgw, source)
    first = run(ticket, state_directory=str(tmp_path / "state"))
    rgw.requests.clear()
    assert run(ticket, state_directory=str(tmp_path / "state")) == first
    assert rgw.count("PUT") == rgw.count("POST") == 0


def test_a_crash_between_completing_and_the_receipt_is_healed(store: FaultyStore, source: Path, tmp_path: Path) -> None:
    ticket = ticket_for(store, source)
    stop = threading.Event()
    store.fail("HEAD", "status", status=503)
    assert put(ticket, str(tmp_path / "state"), stop=stop, clock=Stopper(stop))["code"] == "interrupted"
    assert store.completed == 1
    receipt = run(ticket, state_directory=str(tmp_path / "state"))
    assert receipt["ok"], receipt
    assert receipt["bytes_moved"] == 0


def test_a_run_that_was_killed_before_its_receipt_was_kept_is_ended_by_the_next(
    store: FaultyStore, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload is complete then, and takes no part a second time."""

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    ticket, state = ticket_for(store, source), str(tmp_path / "state")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(stagecoach_mover.Put, "_hand_over", killed)
        run(ticket, state_directory=state)
    assert store.completed == 1
    assert not (tmp_path / "state" / "receipt.json").exists()
    receipt = run(ticket, state_directory=state)
    assert receipt["ok"], receipt
    assert [store.count("PUT", part=part) for part in range(1, 7)] == [1] * 6
    assert sorted(os.listdir(state)) == ["put.lock", "receipt.json"]


def test_a_second_mover_of_a_put_leaves_the_first_one_alone(rgw: FaultyStore, source: Path, tmp_path: Path) -> None:
    ticket, state = ticket_for(rgw, source), tmp_path / "state"
    rgw.fail("PUT", "hold", 3)
    receipts: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: receipts.append(run({**ticket, "attempt": 1}, state_directory=str(state))))
    first.start()
    assert rgw.waiting.wait(5)
    second = run({**ticket, "attempt": 2}, state_directory=str(state))
    assert (second["code"], second["attempt"]) == ("another_mover", 2)
    assert json.loads((state / "receipt.json").read_text())["code"] == "another_mover"
    rgw.hold.set()
    first.join()
    assert (receipts[0]["ok"], receipts[0]["attempt"]) == (True, 1)
    assert json.loads((state / "receipt.json").read_text()) == receipts[0]
    assert rgw.objects["object"] == source.read_bytes()


def test_a_second_mover_that_comes_at_the_end_takes_no_good_receipt_away(rgw: FaultyStore, source: Path, tmp_path: Path) -> None:
    ticket, state = ticket_for(rgw, source), tmp_path / "state"
    receipt = run(ticket, state_directory=str(state))
    keeper = os.open(state / "put.lock", os.O_RDWR)
    fcntl.flock(keeper, fcntl.LOCK_EX)
    other = {**receipt, "size_bytes": receipt["size_bytes"] + 1}  # no receipt that makes the second one end at once
    (state / "receipt.json").write_text(json.dumps(other))
    assert run(ticket, state_directory=str(state))["code"] == "another_mover"
    os.close(keeper)
    assert json.loads((state / "receipt.json").read_text()) == other


def test_without_verification_no_digest_is_made(rgw: FaultyStore, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(name: str) -> object:
        raise AssertionError(name)

    monkeypatch.setattr(stagecoach_mover, "new_digest", forbidden)
    receipt = run(ticket_for(rgw, source), verify=False)
    assert receipt["ok"], receipt
    assert [p["how"] for p in receipt["proved"]] == ["size"]


def no_md5s(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose ETags are digests of another kind."""
    monkeypatch.setattr(faulty_store, "md5", lambda data: hashlib.sha256(data).hexdigest()[:40])


def test_parts_whose_etags_are_no_md5s_are_not_called_compared(
    rgw: FaultyStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_md5s(monkeypatch)
    receipt = run(ticket_for(rgw, source))
    assert receipt["ok"], receipt
    assert rgw.objects["object"] == source.read_bytes()
    assert [p["how"] for p in receipt["proved"]] == ["size"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("readable", [True, False])
def test_a_file_that_the_system_cannot_send_is_read_and_a_bad_disk_is_not_the_stores_fault(
    rgw: FaultyStore, source: Path, monkeypatch: pytest.MonkeyPatch, number: int, readable: bool
) -> None:
    def fails(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sendfile", fails)
    if not readable:
        monkeypatch.setattr(os, "pread", fails)
    receipt = run(ticket_for(rgw, source), verify=False)
    assert receipt["code"] == (None if readable else "mover_error"), receipt
    if readable:
        assert rgw.objects["object"] == source.read_bytes()
        assert receipt["retries"] == 0
    else:
        assert "file system" in receipt["message"]


def test_a_client_that_may_not_look_is_not_misled_by_the_etags_of_a_key_service(
    rgw: FaultyStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = stagecoach_mover.Put._complete

    def completed(leg: Any, line: Any) -> str:
        complete(leg, line)
        return "f" * 32 + "-6"

    monkeypatch.setattr(stagecoach_mover.Put, "_complete", completed)
    monkeypatch.setattr(faulty_store, "md5", lambda data: hashlib.md5(b"key" + data, usedforsecurity=False).hexdigest())
    rgw.headers["x-amz-server-side-encryption"] = "aws:kms"
    ticket = ticket_for(rgw, source)
    del ticket["upload"]["head_url"]
    receipt = run(ticket)
    assert receipt["ok"], receipt
    assert receipt["proved"] == []
    assert rgw.objects["object"] == source.read_bytes()


def test_a_source_behind_a_link_that_came_later_is_not_read(rgw: FaultyStore, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"secret")
    root = base64.b64encode(os.fsencode(tmp_path / "root")).decode()
    (tmp_path / "root" / "project").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "file").symlink_to(tmp_path / "elsewhere" / "file")
    for path in ("root/project/file", "root/file"):
        receipt = run({**rgw.put_ticket(os.fsencode(tmp_path / path), 6), "root_base64": root})
        assert (receipt["ok"], receipt["code"]) == (False, "source_missing")
        assert "symbolic link" in receipt["message"]
    tree = {**rgw.put_ticket(os.fsencode(tmp_path / "root" / "project"), 6), "root_base64": root, "archive": "tar"}
    receipt = run({**tree, "size_bytes": None}, state_directory=str(tmp_path / "state"))
    assert (receipt["ok"], receipt["code"]) == (False, "source_missing")
    assert rgw.count("PUT", "object") == 0


def test_a_source_below_a_root_that_is_a_link_on_this_node_is_read(rgw: FaultyStore, tmp_path: Path) -> None:
    (tmp_path / "mounted" / "project").mkdir(parents=True)
    (tmp_path / "mounted" / "project" / "file").write_bytes(b"content")
    (tmp_path / "root").symlink_to(tmp_path / "mounted")
    root = base64.b64encode(os.fsencode(tmp_path / "root")).decode()
    receipt = run({**rgw.put_ticket(os.fsencode(tmp_path / "root/project/file"), 7), "root_base64": root})
    assert receipt["ok"], receipt
