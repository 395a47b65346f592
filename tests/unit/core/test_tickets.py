"""The ticket carries any path unharmed; a receipt or progress document is believed no further than its shape."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from tests.unit.core.transfers import a_transfer

from stagecoach.core.tickets import TicketUrls, build_ticket, read_progress, read_receipt
from stagecoach.core.transfer import Archive, Direction, Transfer
from stagecoach.mover.stagecoach_mover import Ticket

UPLOAD_URLS = TicketUrls(head="h", progress="p", receipt="r", get="g")
DOWNLOAD_URLS = TicketUrls(head="h", progress="p", receipt="r", parts=("u1", "u2"), complete="c")
GOOD: dict[str, Any] = {
    "version": 1,
    "transfer_id": a_transfer().id,
    "kind": "fetch",
    "ok": True,
    "code": None,
    "message": "Whole.",
    "size_bytes": 1000,
    "bytes_moved": 400,
    "bytes_resumed": 600,
    "etag": '"abc-1"',
    "proved": [{"how": "size", "value": "1000"}],
}
PROGRESS: dict[str, Any] = {"version": 1, "transfer_id": a_transfer().id, "bytes_done": 500, "rate_bytes_per_second": 2.5}
# No JSON at all, or none that is an object.
NO_DOCUMENTS = [
    b"",
    b" ",
    b"{",
    b"null",
    b"true",
    b"1",
    b'"ok"',
    b"[]",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe",
    b"\x00" * 100,
    b'{"ok": true',
    json.dumps(GOOD).encode()[:-5],
    b"\xef\xbb\xbf{}",
    b"9" * 10_000,
    json.dumps([GOOD]).encode(),
]
# Values that a key may be given by somebody who means harm.
STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**400,
    "",
    "text",
    "x" * 50_000,
    "\0",
    "\ud800",
    [],
    [1],
    {},
    {"a": [{}]},
    [[]],
    [{"how": None}],
    [{"how": {"x": 1}, "value": ["\0\ud800"]}],
]


def as_text(document: Any) -> bytes:
    return json.dumps(document).encode()


def require_storable(*texts: str | None) -> None:
    """A database takes it: bounded, valid Unicode, no NUL."""
    for text in texts:
        if text is not None:
            text.encode("utf-8")
            assert "\0" not in text
            assert len(text) <= 1200


@pytest.mark.parametrize(
    "path", ["/home/a b", "/h/'\"", "/h/$(touch pwned)", "/h/a\nb\n", "/h/é", "/h/e\u0301", "/h/-rf", "/h/用"]
)
@pytest.mark.parametrize("direction", Direction)
def test_a_path_travels_unharmed(path: str, direction: Direction) -> None:
    urls = UPLOAD_URLS if direction is Direction.UPLOAD else DOWNLOAD_URLS
    transfer = a_transfer(direction, path="/elsewhere", real_path=path)
    content = build_ticket(transfer, urls, concurrency=None, wait_until_epoch_seconds=None)
    assert base64.b64decode(json.loads(content)["path_base64"]) == path.encode()


def test_the_ticket_of_an_upload_has_what_a_fetch_needs() -> None:
    transfer = a_transfer(digests={"sha256": "ab"}, part_digests={"md5": ("cd",)}, object_etag='"e"')
    ticket = json.loads(build_ticket(transfer, UPLOAD_URLS, concurrency=4, wait_until_epoch_seconds=77))
    assert ticket["kind"] == "fetch"
    assert ticket["object"] == {"get_url": "g", "head_url": "h", "etag": '"e"'}
    assert ticket["wait"] == {"until_epoch_seconds": 77}
    assert "upload" not in ticket
    assert (ticket["version"], ticket["transfer_id"], ticket["digests"]) == (1, transfer.id, {"sha256": "ab"})
    assert ticket["part_digests"] == {"md5": ["cd"]}
    assert (ticket["size_bytes"], ticket["part_size_bytes"], ticket["concurrency"]) == (1000, 8 * 1024 * 1024, 4)
    assert (ticket["progress_url"], ticket["receipt_url"]) == ("p", "r")


def test_the_ticket_of_a_download_has_what_a_put_needs() -> None:
    ticket = json.loads(
        build_ticket(a_transfer(Direction.DOWNLOAD), DOWNLOAD_URLS, concurrency=None, wait_until_epoch_seconds=77)
    )
    assert ticket["kind"] == "put"
    assert ticket["upload"] == {"part_urls": ["u1", "u2"], "complete_url": "c", "head_url": "h"}
    assert "object" not in ticket
    assert "wait" not in ticket


def test_the_ticket_of_a_directory_that_is_sent_leaves_its_size_open_for_ever() -> None:
    for size in (None, 20_480):
        transfer = a_transfer(Direction.DOWNLOAD, archive=Archive.TAR, size_bytes=size, part_count=2)
        content = build_ticket(transfer, DOWNLOAD_URLS, concurrency=None, wait_until_epoch_seconds=None, limit_bytes=77)
        ticket = json.loads(content)
        assert (ticket["archive"], ticket["size_bytes"], ticket["limit_bytes"]) == ("tar", None, 77)
        assert ticket["part_size_bytes"] == 8 * 1024 * 1024


def test_the_ticket_of_a_directory_that_is_received_says_its_size() -> None:
    transfer = a_transfer(archive=Archive.TAR, size_bytes=10_240)
    ticket = json.loads(build_ticket(transfer, UPLOAD_URLS, concurrency=None, wait_until_epoch_seconds=None))
    assert (ticket["archive"], ticket["size_bytes"], "limit_bytes" in ticket) == ("tar", 10_240, False)
    assert "archive" not in json.loads(build_ticket(a_transfer(), UPLOAD_URLS, concurrency=None, wait_until_epoch_seconds=None))


@pytest.mark.parametrize("part_count", [1, 3, 10_000])
@pytest.mark.parametrize("size", [10_240, 2**23, 2**23 + 512, 3 * 2**23 + 512, 10_000 * 2**23 + 512, 5 * 2**40])
def test_service_and_mover_cut_what_was_measured_alike(part_count: int, size: int) -> None:
    transfer = a_transfer(Direction.DOWNLOAD, archive=Archive.TAR, size_bytes=size, part_count=part_count)
    parts = [f"http://store/{number}" for number in range(part_count)]
    urls = TicketUrls(head="http://h/", progress="http://p/", receipt="http://r/", parts=parts, complete="http://c/")
    document = json.loads(build_ticket(transfer, urls, concurrency=None, wait_until_epoch_seconds=None, limit_bytes=2**60))
    ticket = Ticket(document, "put")
    ticket.measure(size)
    assert (ticket.part_size_bytes, ticket.part_count) == (transfer.plan.part_size_bytes, transfer.plan.part_count)
    assert [part.size for part in ticket.parts()] == [transfer.plan.size_of(number) for number in transfer.plan.numbers()]


@pytest.mark.parametrize("known", [None, 10_240])
@pytest.mark.parametrize("size", [10_240, 5 * 1024**4])
def test_what_a_job_has_measured_is_its_receipts_to_say(known: int | None, size: int) -> None:
    transfer = a_transfer(Direction.DOWNLOAD, archive=Archive.TAR, size_bytes=known)
    receipt = read_receipt(as_text({**GOOD, "size_bytes": size}), transfer)
    assert receipt is not None
    assert (receipt.ok, receipt.size_bytes) == (True, size)


@pytest.mark.parametrize("size", [0, -1, None, True, "10240", 10240.0, 5 * 1024**4 + 1, 2**70])
def test_no_size_at_all_is_no_measure(size: object) -> None:
    transfer = a_transfer(Direction.DOWNLOAD, archive=Archive.TAR, size_bytes=None)
    receipt = read_receipt(as_text({**GOOD, "size_bytes": size}), transfer)
    assert receipt is not None
    assert (receipt.ok, receipt.code) == (False, "size_mismatch")
    progress = read_progress(as_text({**PROGRESS, "size_bytes": size}), transfer)
    assert progress is not None
    assert progress.bytes_done <= (progress.measured_bytes or 0) <= 5 * 1024**4


def test_progress_says_what_was_measured() -> None:
    transfer = a_transfer(Direction.DOWNLOAD, archive=Archive.TAR, size_bytes=None)
    before = read_progress(as_text({**PROGRESS, "size_bytes": None, "bytes_done": 0}), transfer)
    after = read_progress(as_text({**PROGRESS, "size_bytes": 10_240}), transfer)
    assert before is not None
    assert after is not None
    assert (before.bytes_done, before.measured_bytes, after.bytes_done, after.measured_bytes) == (0, None, 500, 10_240)
    of_a_file = read_progress(as_text({**PROGRESS, "size_bytes": 7}), a_transfer())
    assert of_a_file is not None
    assert of_a_file.measured_bytes is None


def test_a_held_jobs_ticket_does_not_wait() -> None:
    assert "wait" not in json.loads(build_ticket(a_transfer(), UPLOAD_URLS, concurrency=None, wait_until_epoch_seconds=None))


def test_a_good_receipt_is_read() -> None:
    receipt = read_receipt(as_text(GOOD), a_transfer())
    assert receipt is not None
    assert receipt.ok
    assert (receipt.code, receipt.size_bytes, receipt.bytes_moved, receipt.etag) == (None, 1000, 1000, '"abc-1"')
    assert receipt.proved == ({"how": "size", "value": "1000"},)


def test_no_receipt_yet_is_none() -> None:
    assert read_receipt(None, a_transfer()) is None
    assert read_progress(None, a_transfer()) is None


@pytest.mark.parametrize("content", NO_DOCUMENTS, ids=range(len(NO_DOCUMENTS)))
def test_what_is_no_document_is_no_receipt(content: bytes) -> None:
    assert read_receipt(content, a_transfer()) is None
    assert read_progress(content, a_transfer()) is None


@pytest.mark.parametrize("transfer_id", [None, "", "0123456789abcdefghjkmnpqrt", 1, ["x"]])
def test_a_receipt_of_another_transfer_is_none(transfer_id: object) -> None:
    assert read_receipt(as_text({**GOOD, "transfer_id": transfer_id}), a_transfer()) is None
    assert read_progress(as_text({**PROGRESS, "transfer_id": transfer_id}), a_transfer()) is None


@pytest.mark.parametrize("version", [0, 2, None, "1", [1]])
def test_a_receipt_of_another_version_is_none(version: object) -> None:
    assert read_receipt(as_text({**GOOD, "version": version}), a_transfer()) is None


@pytest.mark.parametrize("size", [999, 1001, 0, -1000, None, "1000", 1000.0, [1000], 10**400, "x" * 50_000])
def test_a_receipt_of_another_size_is_not_ok(size: object) -> None:
    receipt = read_receipt(as_text({**GOOD, "size_bytes": size}), a_transfer())
    assert receipt is not None
    assert not receipt.ok
    assert receipt.code == "size_mismatch"
    assert receipt.size_bytes >= 0
    require_storable(receipt.message)


def test_true_is_not_a_size_of_one_byte() -> None:
    receipt = read_receipt(as_text({**GOOD, "size_bytes": True}), a_transfer(size_bytes=1))
    assert receipt is not None
    assert not receipt.ok


@pytest.mark.parametrize("ok", [1, "true", "yes", [True], {"ok": True}, 1.0, None, False])
def test_only_true_is_ok(ok: object) -> None:
    receipt = read_receipt(as_text({**GOOD, "ok": ok}), a_transfer())
    assert receipt is not None
    assert not receipt.ok
    assert receipt.code


@pytest.mark.parametrize("key", sorted(GOOD))
@pytest.mark.parametrize("value", STRANGE, ids=range(len(STRANGE)))
@pytest.mark.parametrize("ok", [True, False])
def test_no_value_of_any_key_raises_or_reaches_the_database_as_it_is(key: str, value: Any, ok: bool) -> None:
    for size in (1000, 0):
        document = {**GOOD, "ok": ok, "size_bytes": size, key: value}
        receipt = read_receipt(as_text(document), a_transfer())
        if receipt is None:
            continue
        require_storable(receipt.message, receipt.code, receipt.etag)
        for entry in receipt.proved:
            require_storable(entry["how"], entry["value"])
        assert not receipt.ok or (document["ok"] is True and document["size_bytes"] == 1000)


def test_a_receipt_with_any_missing_key_is_read_or_none() -> None:
    for key in GOOD:
        receipt = read_receipt(as_text({name: value for name, value in GOOD.items() if name != key}), a_transfer())
        assert receipt is None or receipt.ok == (key not in {"ok", "size_bytes"})


def test_proofs_are_bounded() -> None:
    receipt = read_receipt(as_text({**GOOD, "proved": [{"how": "h" * 999, "value": "v" * 999}] * 999}), a_transfer())
    assert receipt is not None
    assert len(receipt.proved) <= 20
    require_storable(*(entry["value"] for entry in receipt.proved))


@pytest.mark.parametrize("key", ["bytes_done", "rate_bytes_per_second", "phase"])
@pytest.mark.parametrize("value", [*STRANGE, math.inf, -math.inf, math.nan, 2**70], ids=range(len(STRANGE) + 4))
def test_no_progress_of_any_kind_raises_or_leaves_its_bounds(key: str, value: Any) -> None:
    transfer: Transfer = a_transfer()
    progress = read_progress(as_text({**PROGRESS, key: value}), transfer)
    assert progress is not None
    assert 0 <= progress.bytes_done <= transfer.size_bytes
    assert math.isfinite(progress.rate_bytes_per_second)
    assert progress.rate_bytes_per_second >= 0
    require_storable(progress.phase)


def test_progress_is_read() -> None:
    progress = read_progress(as_text({**PROGRESS, "phase": "moving"}), a_transfer())
    assert progress is not None
    assert (progress.bytes_done, progress.rate_bytes_per_second, progress.phase) == (500, 2.5, "moving")
