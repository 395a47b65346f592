"""Defects of the nearest peer, by row: each that concerns a part we have is a test named after its row.

| row | what is right | here, and where more is tried |
|---|---|---|
| 1 | a cut connection never passes for a whole file | test_row_01; unit/mover/test_fetch.py |
| 2 | content is compared end to end | test_row_02; unit/mover/test_digests.py, e2e/test_digests.py |
| 3 | the old target outlives a failure, nothing stray is left | test_row_03; e2e/test_target_failures.py |
| 4 | nothing runs until the data is there; waiting in vain is a failure | test_row_04 (two) |
| 5 | what failed ends with an exit code | test_row_05; unit/core/test_job_scripts.py |
| 6 | names are never escaped for another language | test_row_06 |
| 7 | no text of a user becomes a command | test_row_07; e2e/test_hostile.py |
| 8 | any POSIX name can be downloaded | test_row_08 |
| 9 | files of no bytes | test_row_09; e2e/test_round_trip.py |
| 10 | – (a second egress mode, which we do not have) | – |
| 11 | a source is read in place, and its change is noticed | test_row_11; unit/mover/test_put.py |
| 12 | no byte is added to a file, no secret is on a command line | test_row_12; unit/mover/test_tls.py |
| 13 | at most 10,000 parts; no URL in the job's script | test_row_13 |
| 14 | a size that is missing or negative is a 4xx | test_row_14 |
| 15 | URLs are signed anew for who needs them later | test_row_15; e2e/test_short_urls.py |
| 16 | any user name has a bucket | test_row_16; unit/core/test_names.py |
| 17 | rules reach existing buckets, nothing is left | test_row_17; contract/bucket_rules_contract.py, e2e/test_survival.py |
| 18 | both ends of a transfer are checked | test_row_18; unit/flows/test_roots.py |
| 19 | the target is looked at before anything is made | test_row_19 |
| 20 | transfers are listed with their story; nothing is left in the home directory | test_row_20 |
| 21 | sessions are bounded, host keys are checked | contract/test_ssh_logins.py (test_row_21 there) |
| 22 | one failure closes a system for nobody else | test_row_22; unit/core/test_breaker.py |
| 23 | bytes are counted, not text around them | test_row_23 (of bodies); integration/firecrest/test_file_bounds.py (of files) |
| 24 | a small limit makes more parts, or is refused in words | test_row_24 |
| 25 | names are UTF-8, parts of files are bytes | test_row_25; contract/files_contract.py, integration/firecrest |
| 26 | a file name leaves no directory; an upload takes its place whole | test_row_26; integration/firecrest/test_file_bounds.py |
| 27 | large files are no matter of a command's time limit | test_row_27; contract/file_operations_contract.py |
| 28 | a 401 repeats nothing; audience and rotation are looked at | test_row_28; unit/api/test_tokens.py |
| 29 | the unforeseen has the one error body | test_row_29; e2e/test_hostile.py |
| 30 | an empty account is none | test_row_30 |
| 31 | only an owner, or only a group, is changed | test_row_31 |
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import ALICE, World
from tests.unit.api.answers import problem
from tests.unit.api.conftest import Issuer, with_token
from tests.unit.mover.clocks import QuickClock
from tests.unit.mover.faulty_store import PART, FaultyStore, hidden_files, some_bytes

from stagecoach.core import names
from stagecoach.core.breaker import Breaker
from stagecoach.core.errors import SizeRefused, SystemUnavailable
from stagecoach.core.parts import plan_parts
from stagecoach.flows.begin_transfer import begin_download
from stagecoach.mover import stagecoach_mover
from stagecoach.ports.scheduler import JobPhase

ROUTE = "/filesystem/alps/transfer"
HOME = "/home/alice"
ODD_NAMES = ["a&b's", "two words", "x;y", "$(touch pwned)", "`id`", "new\nline", "é", '"', "-rf", "<b>", "{{7*7}}", "#", "%2e"]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STAGECOACH_STALL_SECONDS", "0.3")


async def begun(client: httpx.AsyncClient, path: str, size: int = 10, **more: Any) -> dict[str, Any]:
    body = {"path": path, "transferDirectives": {"transferMethod": "s3", "fileSize": size}, **more}
    answer = await client.post(f"{ROUTE}/upload", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def fetched(store: FaultyStore, target: Path, size: int, **more: Any) -> dict[str, Any]:
    return stagecoach_mover.fetch(store.fetch_ticket(os.fsencode(target), size, **more), clock=QuickClock())


def test_row_01_a_cut_connection_is_gone_on_with_and_never_passes_for_the_whole_file(tmp_path: Path) -> None:
    data = some_bytes(6 * PART)
    with FaultyStore().serving() as store:
        store.keep("object", data)
        store.fail("GET", "reset_inside", part=6)
        assert fetched(store, tmp_path / "file", len(data))["ok"]
        assert (tmp_path / "file").read_bytes() == data
        store.fail("GET", "short", part=6, times=99)
        receipt = fetched(store, tmp_path / "other", len(data))
    assert not receipt["ok"]
    assert not (tmp_path / "other").exists()


def test_row_02_a_part_of_other_bytes_never_passes(tmp_path: Path) -> None:
    data = some_bytes(3 * PART)
    with FaultyStore().serving() as store:
        store.keep("object", data)
        store.fail("GET", "wrong_bytes", part=2, times=99)
        receipt = fetched(store, tmp_path / "file", len(data))
    assert (receipt["ok"], receipt["code"]) == (False, "digest_mismatch")
    assert not (tmp_path / "file").exists()


def test_row_03_the_old_target_outlives_a_failure_and_nothing_stray_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with FaultyStore().serving() as store:
        store.keep("object", some_bytes(3 * PART))
        store.fail("GET", "status", part=3, times=99)
        assert not fetched(store, tmp_path / "file", 3 * PART)["ok"]
    assert (tmp_path / "file").read_bytes() == b"old"
    assert hidden_files(tmp_path) == []
    assert os.listdir(tmp_path) == ["file"]


async def test_row_04_nothing_runs_until_the_data_is_there(alice: httpx.AsyncClient, world: World) -> None:
    await begun(alice, f"{HOME}/f")
    await world.work(5, seconds=3600)
    (job,) = world.scheduler.jobs.values()
    assert job.phase is JobPhase.HELD


def test_row_04_a_job_that_waits_in_vain_fails(tmp_path: Path) -> None:
    with FaultyStore().serving() as store:
        receipt = fetched(store, tmp_path / "file", 3, wait={"until_epoch_seconds": 1})
    assert (receipt["ok"], receipt["code"]) == (False, "wait_timed_out")


def test_row_05_a_move_that_failed_ends_with_an_exit_code(tmp_path: Path) -> None:
    with FaultyStore().serving() as store:
        ticket = tmp_path / "ticket.json"
        ticket.write_text(json.dumps(store.fetch_ticket(os.fsencode(tmp_path / "file"), 3)))
        program = [sys.executable, stagecoach_mover.__file__, "fetch", "--ticket", str(ticket)]
        ended = subprocess.run(program, cwd=tmp_path, capture_output=True, timeout=60)
    assert ended.returncode not in {0, 2}, ended.stderr
    assert b"successfully" not in ended.stdout + ended.stderr


async def test_row_06_a_name_arrives_as_it_was_written(alice: httpx.AsyncClient, world: World) -> None:
    made = await begun(alice, f"{HOME}/a&b's")
    transfer = await world.get(made["transferId"])
    assert transfer.real_path == f"{HOME}/a&b's"
    ticket = json.loads(world.store._buckets[transfer.bucket].objects[names.ticket_key(transfer.id)].content)
    assert base64.b64decode(ticket["path_base64"]) == f"{HOME}/a&b's".encode()


async def test_row_07_no_text_of_a_user_is_in_a_command(alice: httpx.AsyncClient, world: World) -> None:
    for name in ODD_NAMES:
        await begun(alice, f"{HOME}/{name}")
    for request in world.scheduler.requests.values():
        script = world.files.entries[request.script_path].content.decode()
        assert not [name for name in ("a&b's", "touch pwned", "`id`", "{{7*7}}") if name in f"{script} {request.name}"]
    for account in ("x\n#SBATCH --uid=0", "$(id)", "x y", "-A"):
        answer = await alice.post(
            f"{ROUTE}/upload",
            json={"path": f"{HOME}/f", "account": account, "transferDirectives": {"transferMethod": "s3", "fileSize": 1}},
        )
        problem(answer, 400)


async def test_row_08_a_file_of_any_name_can_be_downloaded(alice: httpx.AsyncClient, world: World) -> None:
    for name in ODD_NAMES:
        world.files.add_file(f"{HOME}/{name}", "alice", b"content")
        answer = await alice.post(f"{ROUTE}/download", json={"path": f"{HOME}/{name}"})
        assert answer.status_code == 201, answer.text
        assert (await world.get(answer.json()["transferId"])).real_path == f"{HOME}/{name}"


async def test_row_09_an_empty_file_has_one_empty_part(alice: httpx.AsyncClient, tmp_path: Path) -> None:
    made = await begun(alice, f"{HOME}/empty", 0)
    assert len(made["transferDirectives"]["partsUploadUrls"]) == 1
    with FaultyStore().serving() as store:
        store.keep("object", b"")
        assert fetched(store, tmp_path / "file", 0)["ok"]
    assert (tmp_path / "file").read_bytes() == b""


def test_row_11_a_source_is_read_in_place_and_its_change_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(3 * PART))
    seen: list[list[str]] = []
    send = stagecoach_mover.Put._send_part

    def grows(self: Any, line: Any, part: Any) -> None:
        seen.append(sorted(os.listdir(tmp_path)))
        send(self, line, part)
        with source.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(stagecoach_mover.Put, "_send_part", grows)
    with FaultyStore().serving() as store:
        receipt = stagecoach_mover.put(store.put_ticket(os.fsencode(source), 3 * PART), clock=QuickClock())
        assert (receipt["ok"], receipt["code"], store.completed) == (False, "source_changed", 0)
    assert set(map(tuple, seen)) == {("source",)}


async def test_row_12_no_secret_is_on_a_command_line(alice: httpx.AsyncClient, world: World) -> None:
    await begun(alice, f"{HOME}/f")
    (request,) = world.scheduler.requests.values()
    assert "://" not in repr(request)


def test_row_12_no_byte_is_added_to_a_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(some_bytes(2 * PART + 3))
    with FaultyStore().serving() as store:
        assert stagecoach_mover.put(store.put_ticket(os.fsencode(source), 2 * PART + 3), clock=QuickClock())["ok"]
        assert store.objects["object"] == source.read_bytes()


async def test_row_13_any_size_has_at_most_ten_thousand_parts_and_the_script_has_no_url(
    alice: httpx.AsyncClient, world: World
) -> None:
    made = await begun(alice, f"{HOME}/big", 100 * 10**9)
    assert len(made["transferDirectives"]["partsUploadUrls"]) <= 10_000
    assert plan_parts(5 * 1024**4, 5 * 1024**3).part_count <= 10_000
    (request,) = world.scheduler.requests.values()
    script = world.files.entries[request.script_path].content
    assert len(script) < 8000
    assert b"://" not in script


@pytest.mark.parametrize("size", [None, -1])
async def test_row_14_a_size_that_is_none_is_a_4xx(alice: httpx.AsyncClient, size: int | None) -> None:
    directives = {"transferMethod": "s3", **({"fileSize": size} if size is not None else {})}
    answer = await alice.post(f"{ROUTE}/upload", json={"path": f"{HOME}/f", "transferDirectives": directives})
    assert "fileSize" in json.dumps(problem(answer, 400))


async def test_row_15_urls_are_signed_anew_for_who_comes_late(alice: httpx.AsyncClient, world: World) -> None:
    made = await begun(alice, f"{HOME}/f")
    old = made["transferDirectives"]["partsUploadUrls"]
    world.clock.advance(6 * 24 * 3600)
    later = (await alice.get(f"/transfers/{made['transferId']}/parts")).json()
    (missing,) = later["missing"]
    assert missing["url"] not in old
    assert world.store.follow("PUT", missing["url"], b"x" * 10)[0] == 200


@pytest.mark.parametrize("name", ["a", "x" * 60, "alice@realm.example.org", "a_b", "1"])
async def test_row_16_a_user_of_any_name_has_a_bucket(application: FastAPI, issuer: Issuer, world: World, name: str) -> None:
    world.files.add_user(name)
    async with with_token(application, issuer.token(preferred_username=name)) as client:
        await begun(client, f"/home/{name}/f")
        await begun(client, f"/home/{name}/g")
    (bucket,) = {transfer.bucket for transfer in await world.all_transfers()}
    assert 3 <= len(bucket) <= 63
    assert bucket == bucket.lower()


async def test_row_17_a_cancelled_transfer_leaves_no_multipart_no_object_and_no_file(
    alice: httpx.AsyncClient, world: World
) -> None:
    for path in ("f", "g"):
        made = await begun(alice, f"{HOME}/{path}")
        assert (await alice.delete(f"/transfers/{made['transferId']}")).status_code == 200
    await world.work(5, seconds=60)
    assert world.left_outside() == []


@pytest.mark.parametrize("path", ["/etc/cron.d/x", "relative/x", "/home/bob/x", f"{HOME}/../bob/x"])
@pytest.mark.parametrize("way", ["upload", "download"])
async def test_row_18_both_ends_are_checked(alice: httpx.AsyncClient, world: World, path: str, way: str) -> None:
    body = {"path": path, "transferDirectives": {"transferMethod": "s3", "fileSize": 1}}
    problem(await alice.post(f"{ROUTE}/{way}", json=body), 400, "path_refused")
    assert await world.all_transfers() == []


async def test_row_19_a_target_that_cannot_take_the_file_is_refused_before_anything_is_made(
    alice: httpx.AsyncClient, world: World
) -> None:
    world.files.add_directory(f"{HOME}/closed", "root", 0o755)
    world.files.add_directory(f"{HOME}/directory", "alice")
    directives = {"transferMethod": "s3", "fileSize": 1}
    for path, status, code in (
        (f"{HOME}/closed/f", 403, None),
        (f"{HOME}/missing/f", 404, None),
        (f"{HOME}/directory", 400, "not_a_file"),
    ):
        problem(await alice.post(f"{ROUTE}/upload", json={"path": path, "transferDirectives": directives}), status, code)
    problem(await alice.post(f"{ROUTE}/download", json={"path": f"{HOME}/directory"}), 400, "not_a_file")
    assert (await world.all_transfers(), world.scheduler.jobs) == ([], {})


async def test_row_20_transfers_are_listed_and_leave_nothing_in_the_home_directory(
    alice: httpx.AsyncClient, world: World
) -> None:
    before = set(world.files.entries)
    world.files.add_file(f"{HOME}/f", "alice", b"content")
    made = (await alice.post(f"{ROUTE}/download", json={"path": f"{HOME}/f"})).json()
    for _ in range(4):
        world.let_cluster_work()
        await world.work(seconds=20)
    (listed,) = (await alice.get("/transfers")).json()["transfers"]
    assert (listed["id"], listed["state"]) == (made["transferId"], "staged")
    assert (await alice.get(f"/transfers/{listed['id']}")).json()["history"]
    assert (await alice.post(f"/transfers/{listed['id']}/finish")).json()["state"] == "done"
    await world.work(3, seconds=60)
    assert set(world.files.entries) - before - {f"{HOME}/.stagecoach"} == {f"{HOME}/f"}


def test_row_22_the_failure_of_one_closes_a_system_for_nobody_else() -> None:
    breaker = Breaker(SystemUnavailable, lambda: 0.0, callers_needed=2)
    breaker.broke(SystemUnavailable("The probe failed."), "alice")
    with pytest.raises(SystemUnavailable):
        breaker.require("alice")
    breaker.require("bob")


async def test_row_23_what_a_limit_counts_is_bytes(alice: httpx.AsyncClient) -> None:
    padding = "é" * 20_000  # 40 kB of bytes, 240 kB were it written as escapes
    body = json.dumps({"path": f"{HOME}/f", "padding": padding, "transferDirectives": {"fileSize": 1}}, ensure_ascii=False)
    headers = {"content-type": "application/json"}
    answer = await alice.post(f"{ROUTE}/upload", content=body.encode(), headers=headers)
    assert answer.status_code == 201, answer.text


def test_row_24_a_small_largest_part_makes_more_parts_or_is_refused_in_words() -> None:
    assert plan_parts(100 * 1024**2, 5 * 1024**2).part_count == 20
    with pytest.raises(SizeRefused, match="limit"):
        plan_parts(10**12, 5 * 1024**2)


async def test_row_25_names_are_shown_as_they_are(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file(f"{HOME}/é", "alice", b"x")
    listed = (await alice.get("/filesystem/alps/ops/ls", params={"path": HOME})).json()
    assert [entry["name"] for entry in listed["output"]] == ["é"]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "/etc/passwd", "."])
async def test_row_26_a_file_name_leaves_no_directory(alice: httpx.AsyncClient, world: World, name: str) -> None:
    problem(await alice.post(f"{ROUTE}/upload", json={"path": HOME, "fileName": name, "fileSize": 1}), 400)
    assert await world.all_transfers() == []


async def test_row_27_a_large_file_is_looked_at_and_not_read_while_somebody_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.files.add_file(f"{HOME}/big", "alice", b"x" * 1000)

    async def read_file(username: str, path: str, limit_bytes: int) -> bytes | None:
        raise AssertionError(f"{path} was read by the service")

    monkeypatch.setattr(world.files, "read_file", read_file)
    await begin_download(world.tools, ALICE, "alps", f"{HOME}/big")
    # Whatever takes time is the job's.
    assert world.scheduler.count("submit") == 1


async def test_row_28_a_401_repeats_nothing_and_another_audience_is_no_caller(
    application: FastAPI, anonymous: httpx.AsyncClient, issuer: Issuer
) -> None:
    token = issuer.token(aud="another-service")
    answer = await anonymous.get("/transfers", headers={"Authorization": f"Bearer {token}"})
    problem(answer, 401)
    assert not [piece for piece in token.split(".") if piece in answer.text or piece in str(answer.headers)]


async def test_row_29_the_unforeseen_has_the_one_error_body(alice: httpx.AsyncClient, world: World) -> None:
    async def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("words of the inside")

    world.tools.transfers.page = broken  # type: ignore[method-assign, assignment]
    answer = await alice.get("/transfers")
    problem(answer, 500, "internal_error")
    assert "words of the inside" not in answer.text


async def test_row_30_an_empty_account_is_none(alice: httpx.AsyncClient, world: World) -> None:
    made = await begun(alice, f"{HOME}/f", account="")
    assert (await world.get(made["transferId"])).account is None
    assert all(request.account is None for request in world.scheduler.requests.values())


@pytest.mark.parametrize("change", [{"owner": "alice"}, {"owner": "alice", "group": None}, {"owner": "", "group": "g-alice"}])
async def test_row_31_one_of_owner_and_group_is_enough(
    alice: httpx.AsyncClient, world: World, change: dict[str, str | None]
) -> None:
    world.files.add_file(f"{HOME}/f", "alice", b"x")
    answer = await alice.put("/filesystem/alps/ops/chown", json={"path": f"{HOME}/f", **change})
    assert answer.status_code == 200, answer.text
