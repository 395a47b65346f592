"""What is proved of a fetched file: digests that the client announced, and checksums that the store gives."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests.unit.mover.clocks import QuickClock
from tests.unit.mover.faulty_store import PART, FaultyStore, hidden_files, md5, some_bytes

from stagecoach.mover import stagecoach_mover
from stagecoach.mover.stagecoach_mover import Crc32, crc32_product, crc32_shift, fetch

SIZE = 5 * PART + 7
DATA = some_bytes(SIZE)


def crc32(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DIGESTS = {"md5": md5, "sha256": sha256, "crc32": crc32}


def pieces(data: bytes = DATA) -> list[bytes]:
    return [data[at : at + PART] for at in range(0, len(data), PART)] or [b""]


def run(store: FaultyStore, target: Path, data: bytes = DATA, **more: Any) -> dict[str, Any]:
    store.keep("object", data)
    ticket = store.fetch_ticket(os.fsencode(target), len(data), **more)
    return fetch(ticket, clock=QuickClock())


def proofs(receipt: dict[str, Any]) -> dict[str, str]:
    assert receipt["ok"], receipt
    return {proof["how"]: proof["value"] for proof in receipt["proved"]}


def test_the_crc_of_a_whole_is_put_together_from_those_of_its_parts() -> None:
    chance = random.Random(7)
    for _ in range(200):
        first, second = (chance.randbytes(chance.randrange(5000)) for _ in range(2))
        combined = crc32_product(crc32_shift(len(second)), zlib.crc32(first)) ^ zlib.crc32(second)
        assert combined == zlib.crc32(first + second)
    running = Crc32()
    running.update(memoryview(DATA)[:1000])
    running.update(DATA[1000:])
    assert running.hexdigest() == crc32(DATA)


@pytest.mark.parametrize("data", [b"", b"x", some_bytes(PART), DATA], ids=["0", "1", "part", "parts"])
@pytest.mark.parametrize("name", DIGESTS)
def test_a_digest_of_the_whole_is_proved(rgw: FaultyStore, tmp_path: Path, name: str, data: bytes) -> None:
    said = DIGESTS[name](data)
    assert proofs(run(rgw, tmp_path / "file", data, digests={name: said.upper()}))[name] == said


@pytest.mark.parametrize("name", DIGESTS)
def test_another_digest_of_the_whole_leaves_the_old_target(rgw: FaultyStore, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    receipt = run(rgw, tmp_path / "file", digests={name: DIGESTS[name](b"another file")})
    assert (receipt["ok"], receipt["code"]) == (False, "digest_mismatch")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert hidden_files(tmp_path) == []


@pytest.mark.parametrize("name", DIGESTS)
@pytest.mark.parametrize("verify", [True, False])
def test_digests_of_the_parts_are_proved(rgw: FaultyStore, tmp_path: Path, name: str, verify: bool) -> None:
    said = {name: [DIGESTS[name](piece) for piece in pieces()]}
    assert proofs(run(rgw, tmp_path / "file", part_digests=said, verify=verify))[f"part_{name}"] == "6 parts"
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize("name", DIGESTS)
def test_md5_is_left_out_where_the_client_has_said_what_each_part_is(
    rgw: FaultyStore, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: set[str] = set()
    new_digest = stagecoach_mover.new_digest
    monkeypatch.setattr(stagecoach_mover, "new_digest", lambda wanted: made.add(wanted) or new_digest(wanted))
    found = proofs(run(rgw, tmp_path / "file", part_digests={name: [DIGESTS[name](piece) for piece in pieces()]}))
    assert set(found) == {"size", f"part_{name}"} | ({"multipart_etag"} if name == "md5" else set())
    assert made == {name} | ({"md5"} if name == "md5" else set())


@pytest.mark.parametrize("name", DIGESTS)
def test_a_part_that_arrived_otherwise_is_fetched_once_more(rgw: FaultyStore, tmp_path: Path, name: str) -> None:
    rgw.fail("GET", "wrong_bytes", part=3)
    receipt = run(rgw, tmp_path / "file", part_digests={name: [DIGESTS[name](piece) for piece in pieces()]})
    assert receipt["ok"]
    assert rgw.count("GET", part=3) == 2
    assert receipt["bytes_moved"] == SIZE + PART
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_part_that_stays_other_than_announced_is_a_failure(rgw: FaultyStore, tmp_path: Path) -> None:
    said = [sha256(piece) for piece in pieces()]
    said[3] = sha256(b"another part")
    (tmp_path / "file").write_bytes(b"old")
    receipt = run(rgw, tmp_path / "file", part_digests={"sha256": said})
    assert receipt["code"] == "digest_mismatch"
    assert "sha256 of part 4" in receipt["message"]
    assert (tmp_path / "file").read_bytes() == b"old"
    assert hidden_files(tmp_path) == []


@pytest.mark.parametrize(
    "said",
    [{"md5": [md5(b"")] * 5}, {"md5": "x"}, {"crc32": ["zz"] * 6}, {"sha256": [1] * 6}, "x"],
    ids=["too few", "no list", "no hex", "numbers", "no object"],
)
def test_part_digests_of_another_shape_are_refused(rgw: FaultyStore, tmp_path: Path, said: Any) -> None:
    assert run(rgw, tmp_path / "file", part_digests=said)["code"] == "ticket_unreadable"


def test_part_digests_hold_after_an_interruption_too(rgw: FaultyStore, tmp_path: Path) -> None:
    said = {"crc32": [crc32(piece) for piece in pieces()]}
    rgw.fail("GET", "status", part=6, times=100, status=503)
    rgw.keep("object", DATA)
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), SIZE, part_digests=said, digests={"crc32": crc32(DATA)})
    state = str(tmp_path / "state")
    assert fetch(ticket, state, clock=QuickClock())["code"] == "store_unreachable"
    rgw.faults.clear()
    receipt = fetch(ticket, state, clock=QuickClock())
    assert proofs(receipt)["crc32"] == crc32(DATA)
    assert receipt["bytes_resumed"] == 5 * PART


def encoded(name: str, data: bytes) -> str:
    digest = zlib.crc32(data).to_bytes(4, "big") if name == "crc32" else hashlib.new(name, data).digest()
    return base64.b64encode(digest).decode()


def of_parts(name: str, data: bytes) -> str:
    joined = b"".join(base64.b64decode(encoded(name, piece)) for piece in pieces(data))
    return f"{encoded(name, joined)}-{len(pieces(data))}"


@pytest.mark.parametrize("data", [b"", some_bytes(PART), DATA], ids=["0", "part", "parts"])
@pytest.mark.parametrize("kind", [encoded, of_parts])
@pytest.mark.parametrize("name", ["crc32", "sha1", "sha256"])
def test_a_checksum_that_the_store_gives_is_proved(rgw: FaultyStore, tmp_path: Path, name: str, kind: Any, data: bytes) -> None:
    said = kind(name, data)
    rgw.headers[f"x-amz-checksum-{name}"] = said
    assert proofs(run(rgw, tmp_path / "file", data))[f"store_{name}"] == said
    rgw.headers[f"x-amz-checksum-{name}"] = kind(name, b"x" * len(data) if data else b"x")
    assert run(rgw, tmp_path / "other", data)["code"] == "digest_mismatch"


def test_a_checksum_that_python_cannot_make_quickly_is_left_alone(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.headers.update({"x-amz-checksum-crc64nvme": "AAAAAAAAAAA=", "x-amz-checksum-sha256": of_parts("sha256", DATA)[:-1] + "7"})
    assert set(proofs(run(rgw, tmp_path / "file"))) == {"size", "multipart_etag"}


def test_checksums_are_asked_for_where_the_url_was_signed_for_it(rgw: FaultyStore, tmp_path: Path) -> None:
    rgw.keep("object", DATA)
    ticket = rgw.fetch_ticket(os.fsencode(tmp_path / "file"), SIZE)
    assert fetch(ticket, clock=QuickClock())["ok"]
    assert rgw.checksum_modes == [None]
    ticket["object"]["head_url"] += "&X-Amz-SignedHeaders=host%3Bx-amz-checksum-mode"
    assert fetch(ticket, clock=QuickClock())["ok"]
    assert rgw.checksum_modes == [None, "ENABLED"]
