"""The routes: both wire forms with their exact keys, every refusal with the one body, and nothing left by any of them."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import World
from tests.unit.api.answers import problem

from stagecoach.core.transfer import State
from stagecoach.flows.toolbox import Toolbox
from stagecoach.ports.scheduler import JobPhase

UPLOAD, DOWNLOAD = "/filesystem/alps/transfer/upload", "/filesystem/alps/transfer/download"
SIZE = 1000
TARGET = "/home/alice/big.bin"
BODY: dict[str, Any] = {"path": TARGET, "transferDirectives": {"transferMethod": "s3", "fileSize": SIZE}}
TAR: dict[str, Any] = {"archive": "tar", "transferDirectives": {"fileSize": 10_240}}
JOB_KEYS = {"jobId", "system", "workingDirectory", "logs"}


def require_job(job: dict[str, Any], world: World) -> None:
    (known,) = world.scheduler.jobs.values()
    directory = world.scheduler.requests[known.job_id].directory
    assert job == {
        "jobId": known.job_id,
        "system": "alps",
        "workingDirectory": directory,
        "logs": {"outputLog": f"{directory}/output.log", "errorLog": f"{directory}/error.log"},
    }


async def require_nothing_made(world: World) -> None:
    assert await world.all_transfers() == []
    assert world.store._buckets == {}
    assert world.scheduler.jobs == {}
    assert world.scheduler.count("submit") == 0
    assert world.left_outside() == []


async def begun(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post(UPLOAD, json={**BODY, **changes})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def put(world: World, directives: dict[str, Any], content: bytes = bytes(SIZE)) -> None:
    from tests.fakes.systems import put_by_urls

    urls, complete = directives["partsUploadUrls"], directives["completeUploadUrl"]
    assert put_by_urls(world.store.follow, content, directives["maxPartSize"], urls, complete)


async def test_an_upload_in_todays_form(alice: httpx.AsyncClient, world: World) -> None:
    answer = await alice.post(UPLOAD, json=BODY)
    assert answer.status_code == 201
    assert answer.headers["f7t-appversion"] == "2.6.0"
    body = answer.json()
    assert set(body) == {"transferJob", "transferDirectives", "transferId"}
    require_job(body["transferJob"], world)
    directives = body["transferDirectives"]
    assert set(directives) == {"transferMethod", "partsUploadUrls", "completeUploadUrl", "maxPartSize"}
    assert (directives["transferMethod"], directives["maxPartSize"], len(directives["partsUploadUrls"])) == ("s3", 8388608, 1)
    put(world, directives)
    assert (await alice.post(f"/transfers/{body['transferId']}/finish")).json()["state"] == "staged"


async def test_an_upload_in_the_older_flat_form(alice: httpx.AsyncClient, world: World) -> None:
    answer = await alice.post(UPLOAD, json={"source_path": "/home/alice", "fileName": "big.bin", "fileSize": str(SIZE)})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert set(body) == {
        "transferJob",
        "maxPartSize",
        "partsUploadUrls",
        "completeUploadUrl",
        "completeMultipartUploadUrl",
        "transferId",
    }
    require_job(body["transferJob"], world)
    assert (await world.the_transfer()).path == TARGET
    put(world, body)


async def test_downloads_in_both_forms(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file(TARGET, "alice", bytes(SIZE))
    today = (await alice.post(DOWNLOAD, json={"source_path": TARGET, "transfer_directives": {"transferMethod": "s3"}})).json()
    assert set(today) == {"transferJob", "transferDirectives", "transferId"}
    assert set(today["transferDirectives"]) == {"transferMethod", "downloadUrl"}
    require_job(today["transferJob"], world)
    flat = (await alice.post(DOWNLOAD, json={"path": TARGET})).json()
    assert set(flat) == {"transferJob", "downloadUrl", "transferId"}
    assert set(flat["transferJob"]) == JOB_KEYS
    assert flat["transferJob"]["jobId"] != today["transferJob"]["jobId"]


async def test_a_directory_goes_up_and_down_as_an_archive(alice: httpx.AsyncClient, world: World) -> None:
    body = (await alice.post(UPLOAD, json={**TAR, "path": "/home/alice/tree/"})).json()
    shown = (await alice.get(f"/transfers/{body['transferId']}")).json()
    assert (shown["path"], shown["archive"], shown["sizeBytes"], shown["partCount"]) == ("/home/alice/tree", "tar", 10_240, 1)
    world.files.add_directory("/home/alice/source", "alice")
    for form in ({}, {"transferDirectives": {}}):
        body = (await alice.post(DOWNLOAD, json={"path": "/home/alice/source/", "archive": "tar", **form})).json()
        shown = (await alice.get(f"/transfers/{body['transferId']}")).json()
        assert (shown["archive"], shown["sizeBytes"], shown["partCount"]) == ("tar", None, None)
        assert shown["partSizeBytes"] == 8_388_608
        assert "source.tar" in (body.get("transferDirectives") or body)["downloadUrl"]
    listed = (await alice.get("/transfers")).json()["transfers"]
    assert sorted(str(transfer["sizeBytes"]) for transfer in listed) == ["10240", "None", "None"]
    plain = (await alice.post(UPLOAD, json={**BODY, "archive": None})).json()
    assert (await alice.get(f"/transfers/{plain['transferId']}")).json()["archive"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"path": TARGET, "transfer_directives": {"file_size": SIZE, "transfer_method": "s3"}},
        {"sourcePath": TARGET, "account": "", "transferDirectives": {"fileSize": SIZE, "transferMethod": "s3"}},
        {"sourcePath": TARGET, "account": None, "transferDirectives": {"fileSize": SIZE, "transferMethod": "s3"}},
        {"path": TARGET, "fileName": "x", "transferDirectives": {"fileSize": str(SIZE), "transferMethod": "s3"}},
        {"path": TARGET, "fileSize": SIZE},
    ],
)
async def test_every_clients_form_is_answered(alice: httpx.AsyncClient, world: World, body: dict[str, Any]) -> None:
    answer = await alice.post(UPLOAD, json=body)
    assert answer.status_code == 201, answer.text
    assert ((await world.the_transfer()).path, (await world.the_transfer()).size_bytes) == (TARGET, SIZE)


WRONG: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("/filesystem/nowhere/transfer/upload", {}, 404, "system_not_found", "System not found"),
    ("/filesystem/%2e%2e%2fx/transfer/upload", {}, 404, "", ""),
    (UPLOAD, {"path": "big.bin"}, 400, "path_refused", "relative"),
    (UPLOAD, {"path": "/home/alice/../bob/x"}, 400, "path_refused", "'..'"),
    (UPLOAD, {"path": "/home/bob/x"}, 400, "path_refused", "outside"),
    (UPLOAD, {"path": "/etc/passwd"}, 400, "path_refused", "outside"),
    (UPLOAD, {"path": "/home/alice2/x"}, 400, "path_refused", "outside"),
    (UPLOAD, {"path": "/home/alice/a\0b"}, 400, "path_refused", "NUL"),
    (UPLOAD, {"path": "/home/alice/" + "x" * 256}, 400, "path_refused", "255"),
    (UPLOAD, {"path": ""}, 400, "validation_error", ""),
    (UPLOAD, {"path": "/home/alice/"}, 400, "path_refused", "directory"),
    (UPLOAD, {"path": "/home/alice"}, 400, "path_refused", ""),
    (UPLOAD, {"path": "/home/alice/none/x"}, 404, "file_missing", "No such file or directory"),
    (UPLOAD, {"path": "/home/alice/directory"}, 400, "not_a_file", "directory"),
    (UPLOAD, {"path": "/home/alice/file/x"}, 400, "not_a_file", "not a directory"),
    (UPLOAD, {"path": "/home/alice/fifo"}, 400, "not_a_file", ""),
    (UPLOAD, {"path": "/home/alice/dangling"}, 400, "not_a_file", "symbolic link"),
    (UPLOAD, {"path": "/home/alice/outside/x"}, 400, "path_refused", "symbolic link"),
    (UPLOAD, {"path": "/home/alice/outside-file"}, 400, "path_refused", "symbolic link"),
    (UPLOAD, {"path": "/scratch/x"}, 403, "permission_denied", "Permission denied"),
    (UPLOAD, {"path": "/scratch/closed/x"}, 403, "permission_denied", ""),
    (UPLOAD, {"transferDirectives": {}}, 400, "size_refused", "fileSize is missing"),
    (UPLOAD, {"transferDirectives": {"fileSize": None}}, 400, "size_refused", "5 TiB"),
    (UPLOAD, {"transferDirectives": None}, 400, "size_refused", "fileSize"),
    (UPLOAD, {"transferDirectives": {"fileSize": -1}}, 400, "validation_error", "0"),
    (UPLOAD, {"transferDirectives": {"fileSize": 5 * 1024**4 + 1}}, 400, "validation_error", str(5 * 1024**4)),
    (UPLOAD, {"transferDirectives": {"fileSize": 10**30}}, 400, "validation_error", str(5 * 1024**4)),
    (UPLOAD, {"transferDirectives": {"fileSize": "12abc"}}, 400, "validation_error", "whole number"),
    (UPLOAD, {"transferDirectives": {"fileSize": True}}, 400, "validation_error", "whole number"),
    (UPLOAD, {"transferDirectives": {"fileSize": 5 * 1024**4}}, 400, "no_space", "free"),
    (UPLOAD, {"transferDirectives": {"fileSize": 10**6 + 1}}, 400, "no_space", str(10**6)),
    (UPLOAD, {"transferDirectives": {"transferMethod": "wormhole", "wormholeCode": "7-a"}}, 400, "invalid_request", "="),
    (UPLOAD, {"transferDirectives": {"transferMethod": "streamer", "fileSize": 1}}, 400, "invalid_request", "="),
    (UPLOAD, {"transferDirectives": {"transferMethod": "ftp", "fileSize": 1}}, 400, "validation_error", ""),
    (UPLOAD, {"account": "a b"}, 400, "invalid_request", "account"),
    (UPLOAD, {"account": "$(id)"}, 400, "invalid_request", "account"),
    (UPLOAD, {"account": "-x"}, 400, "invalid_request", "account"),
    (UPLOAD, {"account": "é"}, 400, "invalid_request", "account"),
    (UPLOAD, {"account": "a\n"}, 400, "invalid_request", "account"),
    (UPLOAD, {"account": "x" * 65}, 400, "validation_error", "64"),
    ("/filesystem/bora/transfer/upload", {}, 400, "account_required", "Account parameter is required on this system."),
    ("/filesystem/bora/transfer/upload", {"account": ""}, 400, "account_required", ""),
    (UPLOAD, {"transferDirectives": None, "fileName": "a/b", "fileSize": 1, "path": "/home/alice"}, 400, "path_refused", ""),
    (UPLOAD, {"transferDirectives": None, "fileName": "..", "fileSize": 1, "path": "/home/alice"}, 400, "path_refused", ""),
    (UPLOAD, {**TAR, "path": "/home/alice/file"}, 409, "target_exists", "no directory"),
    (UPLOAD, {**TAR, "path": "/home/alice/fifo"}, 409, "target_exists", "no directory"),
    (UPLOAD, {**TAR, "path": "/home/alice/dangling"}, 409, "target_exists", "no directory"),
    (UPLOAD, {**TAR, "path": "/home/alice/to-directory"}, 409, "target_exists", "no directory"),
    (UPLOAD, {**TAR, "path": "/home/alice/full"}, 409, "target_exists", "not empty"),
    (UPLOAD, {**TAR, "path": "/home/alice/full/"}, 409, "target_exists", "not empty"),
    (UPLOAD, {**TAR, "path": "/home/alice"}, 400, "path_refused", "file system"),
    (UPLOAD, {**TAR, "path": "/home/alice/none/x"}, 404, "file_missing", "No such file or directory"),
    (UPLOAD, {**TAR, "path": "/home/alice/outside/x"}, 400, "path_refused", "symbolic link"),
    (UPLOAD, {**TAR, "path": "/scratch/x"}, 403, "permission_denied", "Permission denied"),
    (UPLOAD, {"archive": "tar", "transferDirectives": {"fileSize": 512}}, 400, "size_refused", "tar"),
    (UPLOAD, {"archive": "tar", "transferDirectives": {"fileSize": 10241}}, 400, "size_refused", "compressed"),
    (UPLOAD, {"archive": "tar", "transferDirectives": {"fileSize": 1024**3}}, 400, "no_space", "free"),
    (UPLOAD, {"archive": "tar"}, 400, "size_refused", "512"),
    (UPLOAD, {"archive": "zip"}, 400, "validation_error", "tar"),
    (DOWNLOAD, {"path": "/home/alice/full"}, 400, "not_a_file", "archive"),
    (DOWNLOAD, {"archive": "tar", "path": "/home/alice/file"}, 400, "not_a_directory", "without archive"),
    (DOWNLOAD, {"archive": "tar", "path": "/home/alice/fifo"}, 400, "not_a_directory", ""),
    (DOWNLOAD, {"archive": "tar", "path": "/home/alice/none"}, 404, "file_missing", "No such file or directory"),
    (DOWNLOAD, {"archive": "tar", "path": "/home/alice/outside"}, 400, "path_refused", "symbolic link"),
    (DOWNLOAD, {"archive": "tar", "path": "/scratch/closed"}, 403, "permission_denied", "Permission denied"),
    (DOWNLOAD, {"path": "/home/alice/none"}, 404, "file_missing", "No such file or directory"),
    (DOWNLOAD, {"path": "/home/alice/directory"}, 400, "not_a_file", "directory"),
    (DOWNLOAD, {"path": "/home/alice/fifo"}, 400, "not_a_file", ""),
    (DOWNLOAD, {"path": "/home/alice/secret"}, 403, "permission_denied", "Permission denied"),
    (DOWNLOAD, {"path": "/home/alice/outside-file"}, 400, "path_refused", "symbolic link"),
    (DOWNLOAD, {"path": "/home/alice/dangling"}, 404, "file_missing", ""),
    (DOWNLOAD, {"transferDirectives": {"transferMethod": "streamer"}}, 400, "invalid_request", "="),
    ("/filesystem/bora/transfer/download", {"path": "/home/alice/file"}, 400, "account_required", ""),
]


@pytest.mark.parametrize(("route", "changes", "status", "code", "words"), WRONG)
async def test_what_cannot_be_served_is_refused_in_words_and_nothing_is_made(
    alice: httpx.AsyncClient, world: World, route: str, changes: dict[str, Any], status: int, code: str, words: str
) -> None:
    files = world.files
    files.add_directory("/scratch", "root")
    files.add_directory("/scratch/closed", "root", 0o700)
    files.add_directory("/home/alice/directory", "alice")
    files.add_directory("/home/alice/full", "alice")
    files.add_file("/home/alice/full/x", "alice", b"x")
    files.add_symlink("/home/alice/to-directory", "alice", "directory")
    files.add_file("/home/alice/file", "alice", b"x")
    files.add_file("/home/alice/secret", "root", b"x", 0o600)
    files.add_other("/home/alice/fifo", "alice")
    files.add_symlink("/home/alice/dangling", "alice", "nothing")
    files.add_directory("/data", "root", 0o777)
    files.add_file("/data/file", "alice", b"x")
    files.add_symlink("/home/alice/outside", "alice", "/data")
    files.add_symlink("/home/alice/outside-file", "alice", "/data/file")
    files.free["/home/alice"] = 10**6
    before = set(files.entries)
    body = problem(await alice.post(route, json={**BODY, **changes}), status, code or None)
    if words == "=":
        assert body["message"] == "Requested transfer method is not available."
    else:
        assert words in body["message"]
    assert body["user"] in {"alice", None}
    await require_nothing_made(world)
    assert set(files.entries) == before


async def test_a_symlink_inside_is_followed_and_replaced_where_it_points(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_directory("/scratch", "root", 0o777)
    world.files.add_file("/scratch/real", "alice", b"old")
    world.files.add_symlink("/home/alice/link", "alice", "/scratch/real")
    await begun(alice, path="/home/alice/link")
    transfer = await world.the_transfer()
    assert (transfer.path, transfer.real_path) == ("/home/alice/link", "/scratch/real")


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'"x"', b"\xff", b'{"path":"\\ud800"}', b"{}", b"[" * 50_000])
async def test_a_body_that_is_no_request_is_refused(alice: httpx.AsyncClient, world: World, content: bytes) -> None:
    problem(await alice.post(UPLOAD, content=content, headers={"content-type": "application/json"}), 400)
    await require_nothing_made(world)


async def test_a_validation_problem_names_the_fields(alice: httpx.AsyncClient) -> None:
    answer = await alice.post(UPLOAD, json={"path": "/p", "transferDirectives": {"fileSize": "x"}})
    body = problem(answer, 400, "validation_error")
    assert body["data"]["fields"] == [
        {"location": "body", "name": "transferDirectives.fileSize", "message": "must be a whole number of bytes"}
    ]


@pytest.mark.parametrize("away", ["store", "files", "scheduler"])
@pytest.mark.parametrize("route", [UPLOAD, DOWNLOAD])
async def test_what_is_down_is_503_and_nothing_is_left(alice: httpx.AsyncClient, world: World, away: str, route: str) -> None:
    world.files.add_file(TARGET, "alice", bytes(SIZE))
    world.store.failing, world.files.unavailable, world.scheduler.unavailable = (
        away == "store",
        away == "files",
        away == "scheduler",
    )
    answer = await alice.post(route, json=BODY)
    body = problem(answer, 503)
    assert body["code"] in {"store_unavailable", "system_unavailable"}
    assert int(answer.headers["retry-after"]) > 0
    world.store.failing = world.files.unavailable = world.scheduler.unavailable = False
    await world.work(5, seconds=100)
    assert world.left_outside() == []
    for transfer in await world.all_transfers():
        assert (transfer.state, transfer.cleaned) == (State.FAILED, True)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "route_not_found"),
        ("GET", "/nowhere", 404, "route_not_found"),
        ("GET", "/transfers/a/b/c", 404, "route_not_found"),
        ("PUT", "/transfers", 405, "method_not_allowed"),
        ("GET", UPLOAD, 405, "method_not_allowed"),
        ("PATCH", "/healthz", 405, "method_not_allowed"),
    ],
)
async def test_unknown_routes_and_methods_have_the_same_body(
    alice: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    problem(await alice.request(method, path), status, code)


@pytest.mark.parametrize("path", ["/", "/nowhere", "/transfers", UPLOAD])
async def test_without_a_token_nothing_is_read_and_nothing_is_told(anonymous: httpx.AsyncClient, path: str) -> None:
    problem(await anonymous.post(path, content=b"{" * 1000), 401, "not_authenticated")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_larger_than_any_of_ours_is_not_read(alice: httpx.AsyncClient, announced: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    content = b" " * 1_000_000 if announced else pieces()
    problem(await alice.post(UPLOAD, content=content), 413, "body_too_large")


async def test_an_unforeseen_failure_tells_nothing_of_the_inside(alice: httpx.AsyncClient, world: World) -> None:
    async def broken(*arguments: object) -> None:
        raise RuntimeError("very-secret-1 at 0x7f")

    world.tools.transfers.page = broken  # type: ignore[method-assign, assignment]
    answer = await alice.get("/transfers")
    body = problem(answer, 500, "internal_error")
    assert "very-secret-1" not in answer.text
    assert "RuntimeError" not in body["message"]


async def test_the_headers_of_firecrest_are_on_every_answer(alice: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    headers = {"x-request-id": "r-1", "x-correlation-id": "c-1"}
    for client, path in ((alice, "/transfers"), (anonymous, "/transfers"), (anonymous, "/healthz"), (anonymous, "/nowhere")):
        answer = await client.get(path, headers=headers)
        assert answer.headers["f7t-appversion"] == "2.6.0"
        assert answer.headers["f7t-timestamp"]
        assert (answer.headers["x-request-id"], answer.headers["x-correlation-id"]) == ("r-1", "c-1")


async def test_a_strange_request_id_is_not_sent_back(alice: httpx.AsyncClient) -> None:
    for value in (b"x" * 129, b"a\tb", b"\xa0"):
        answer = await alice.get("/transfers", headers={b"x-request-id": value})  # type: ignore[dict-item]
        assert answer.status_code == 200
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_another_users_transfer_does_not_exist_on_any_route(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, world: World
) -> None:
    made = await begun(alice)
    transfer_id, job_id = made["transferId"], made["transferJob"]["jobId"]
    for method, path in [
        ("GET", f"/transfers/{transfer_id}"),
        ("DELETE", f"/transfers/{transfer_id}"),
        ("GET", f"/transfers/{transfer_id}/parts"),
        ("POST", f"/transfers/{transfer_id}/finish"),
        ("GET", f"/transfers/{transfer_id}/download-url"),
    ]:
        theirs = problem(await bob.request(method, path), 404, "transfer_not_found")
        nobodys = problem(await bob.request(method, path.replace(transfer_id, "0" * 26)), 404, "transfer_not_found")
        assert theirs == nobodys
    problem(await bob.get(f"/compute/alps/jobs/{job_id}"), 404, "job_not_found")
    assert (await bob.get("/transfers")).json()["transfers"] == []
    assert (await bob.get("/transfers?owner=alice")).json()["transfers"] == []
    assert (await world.the_transfer()).state is State.RECEIVING


async def test_an_administrator_sees_everything(
    alice: httpx.AsyncClient, admin: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    made = await begun(alice)
    await begun(bob, path="/home/bob/x")
    assert {row["owner"] for row in (await admin.get("/transfers")).json()["transfers"]} == {"alice", "bob"}
    assert {row["owner"] for row in (await admin.get("/transfers?owner=bob")).json()["transfers"]} == {"bob"}
    assert (await admin.get(f"/transfers/{made['transferId']}")).json()["owner"] == "alice"
    assert (await admin.get(f"/compute/alps/jobs/{made['transferJob']['jobId']}")).status_code == 200
    assert (await admin.delete(f"/transfers/{made['transferId']}")).json()["state"] == "cancelled"


async def test_an_administrator_gets_at_nobodys_data(alice: httpx.AsyncClient, admin: httpx.AsyncClient, world: World) -> None:
    upload = (await begun(alice))["transferId"]
    world.files.add_file("/home/alice/secret", "alice", bytes(10))
    answer = await alice.post("/filesystem/alps/transfer/download", json={"path": "/home/alice/secret"})
    download = answer.json()["transferId"]
    for method, path in (
        ("GET", f"/transfers/{upload}/parts"),
        ("POST", f"/transfers/{upload}/finish"),
        ("GET", f"/transfers/{download}/download-url"),
        ("POST", f"/transfers/{download}/finish"),
    ):
        problem(await admin.request(method, path), 403, "permission_denied")
    assert (await alice.get(f"/transfers/{upload}/parts")).status_code == 200


async def test_transfers_are_paged_newest_first(alice: httpx.AsyncClient, world: World) -> None:
    made = []
    for number in range(7):
        world.clock.advance(1)
        made.append((await begun(alice, path=f"/home/alice/{number}"))["transferId"])
    seen, after, pages = [], None, 0
    while True:
        page = (await alice.get("/transfers", params={"limit": 3, **({"after": after} if after else {})})).json()
        seen += [row["id"] for row in page["transfers"]]
        pages += 1
        after = page["next"]
        if after is None:
            break
    assert (seen, pages) == (made[::-1], 3)
    exact = (await alice.get("/transfers?limit=7")).json()
    assert (len(exact["transfers"]), exact["next"]) == (7, None)


async def test_transfers_are_filtered(alice: httpx.AsyncClient, world: World) -> None:
    up = (await begun(alice))["transferId"]
    world.files.add_file(TARGET, "alice", bytes(SIZE))
    world.clock.advance(1)
    down = (await alice.post(DOWNLOAD, json={"path": TARGET})).json()["transferId"]
    for query, expected in [
        ("", [down, up]),
        ("direction=upload", [up]),
        ("direction=download", [down]),
        ("system=alps", [down, up]),
        ("system=bora", []),
        ("state=receiving", [up]),
        ("state=receiving&state=queued", [down, up]),
        ("state=done", []),
        ("direction=upload&state=queued", []),
    ]:
        assert [row["id"] for row in (await alice.get(f"/transfers?{query}")).json()["transfers"]] == expected, query


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=x", "direction=up", "state=asleep", "system=%00", "owner=%00", "after=%00"]
)
async def test_a_filter_that_cannot_be_is_refused(alice: httpx.AsyncClient, query: str) -> None:
    problem(await alice.get(f"/transfers?{query}"), 400, "validation_error")


@pytest.mark.parametrize("transfer_id", ["x", "%00", "0" * 27, "0" * 64, "%2e%2e", "A" * 26, "é", "1' or '1'='1"])
async def test_an_id_that_cannot_be_is_not_found(alice: httpx.AsyncClient, transfer_id: str) -> None:
    problem(await alice.get(f"/transfers/{transfer_id}"), 404)


async def test_a_transfer_is_shown_with_its_story(alice: httpx.AsyncClient, world: World) -> None:
    made = await begun(alice)
    shown = (await alice.get(f"/transfers/{made['transferId']}")).json()
    assert (shown["state"], shown["direction"], shown["path"], shown["sizeBytes"]) == ("receiving", "upload", TARGET, SIZE)
    assert [line["state"] for line in shown["history"]] == ["preparing", "receiving"]
    assert shown["createdAt"].endswith("Z")
    assert shown["meaning"].endswith(".")


async def test_parts_are_shown_with_fresh_urls(alice: httpx.AsyncClient, world: World) -> None:
    made = await begun(alice)
    parts = (await alice.get(f"/transfers/{made['transferId']}/parts")).json()
    assert [(part["number"], part["offsetBytes"], part["sizeBytes"]) for part in parts["missing"]] == [(1, 0, SIZE)]
    assert world.store.follow("PUT", parts["missing"][0]["url"], bytes(SIZE))[0] == 200
    parts = (await alice.get(f"/transfers/{made['transferId']}/parts")).json()
    assert (parts["missing"], [part["sizeBytes"] for part in parts["stored"]]) == ([], [SIZE])


async def test_finishing_too_early_names_the_missing_parts(alice: httpx.AsyncClient) -> None:
    made = await begun(alice)
    body = problem(await alice.post(f"/transfers/{made['transferId']}/finish"), 409, "parts_missing")
    assert body["data"] == {"missing": [1], "missing_count": 1}


async def test_digests_are_taken_with_the_request_and_at_the_end(alice: httpx.AsyncClient, world: World) -> None:
    content = bytes(SIZE)
    md5, crc32 = hashlib.md5(content).hexdigest(), f"{zlib.crc32(content):08X}"
    made = await begun(alice, crc32=crc32)
    finish = f"/transfers/{made['transferId']}/finish"
    urls = made["transferDirectives"]["partsUploadUrls"]
    assert world.store.follow("PUT", urls[0], b"x" * SIZE)[0] == 200
    said = {"partDigests": {"algorithm": "md5", "values": [md5.upper()]}}
    body = problem(await alice.post(finish, json=said), 409, "parts_differ")
    assert body["data"] == {"differing": [1], "differing_count": 1}
    two = {"partDigests": {"algorithm": "md5", "values": [md5, md5]}}
    assert problem(await alice.post(finish, json=two), 400, "digest_refused")["data"]["part_count"] == 1
    problem(await alice.post(finish, json={"crc32": "0" * 8}), 409, "wrong_state")
    problem(await alice.post(finish, json={"crc32": "x"}), 400, "validation_error")
    assert world.store.follow("PUT", urls[0], content)[0] == 200
    assert (await alice.post(finish, json=said)).json()["state"] == "staged"
    kept = await world.get(made["transferId"])
    assert (kept.digests, kept.part_digests) == ({"crc32": crc32.lower()}, {"md5": (md5,)})


async def test_the_digests_of_ten_thousand_parts_are_understood(alice: httpx.AsyncClient) -> None:
    said = {"algorithm": "sha256", "values": ["0" * 64] * 10_000}
    answer = await alice.post(UPLOAD, json={**BODY, "partDigests": said})
    assert "10000 values, but the file has 1 parts" in problem(answer, 400, "digest_refused")["message"]


async def test_a_download_url_is_signed_again_while_it_is_staged(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file(TARGET, "alice", bytes(SIZE))
    made = (await alice.post(DOWNLOAD, json={"path": TARGET})).json()
    path = f"/transfers/{made['transferId']}/download-url"
    problem(await alice.get(path), 409, "wrong_state")
    for _ in range(3):
        world.let_cluster_work()
        await world.work()
    signed = (await alice.get(path)).json()
    assert world.store.follow("GET", signed["downloadUrl"])[2] == bytes(SIZE)
    short = (await alice.get(path, params={"ttlSeconds": 90})).json()
    assert datetime.fromisoformat(short["expiresAt"]) == world.clock.now() + timedelta(seconds=90)
    for wanted in (59, 604801, "long"):
        problem(await alice.get(path, params={"ttlSeconds": wanted}), 400, "validation_error")
    staged_until = (await alice.get(f"/transfers/{made['transferId']}")).json()["expiresAt"]
    longest = (await alice.get(path, params={"ttlSeconds": 604800})).json()["expiresAt"]
    ends = [datetime.fromisoformat(staged_until), world.clock.now() + timedelta(days=7)]
    assert datetime.fromisoformat(longest) == min(ends)
    world.clock.advance(91)
    assert world.store.follow("GET", short["downloadUrl"])[0] == 403
    assert world.store.follow("GET", signed["downloadUrl"])[0] == 200
    assert (await alice.post(f"/transfers/{made['transferId']}/finish")).json()["state"] == "done"
    problem(await alice.get(path), 409, "wrong_state")
    upload = await begun(alice, path="/home/alice/y")
    problem(await alice.get(f"/transfers/{upload['transferId']}/download-url"), 409, "wrong_state")


async def test_a_download_is_saved_under_the_files_own_name(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file('/home/alice/é "q"\r\nX: y', "alice", b"x")
    made = (await alice.post(DOWNLOAD, json={"path": '/home/alice/é "q"\r\nX: y'})).json()
    assert "%0D%0A" not in made["downloadUrl"].replace("%250D%250A", "")


async def job_of(client: httpx.AsyncClient, made: dict[str, Any], system: str = "alps") -> dict[str, Any]:
    answer = await client.get(f"/compute/{system}/jobs/{made['transferJob']['jobId']}?allusers=false")
    assert answer.status_code == 200, answer.text
    (job,) = answer.json()["jobs"]
    assert {"jobId", "name", "status", "tasks", "time", "account", "allocationNodes", "cluster", "group", "nodes"} <= set(job)
    assert {"partition", "killRequestUser", "user", "workingDirectory", "priority"} <= set(job)
    assert set(job["status"]) == {"state", "stateReason", "exitCode", "interruptSignal"}
    assert job["status"]["state"] in {"PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
    result: dict[str, Any] = job
    return result


async def test_the_job_is_shown_in_firecrests_words_over_an_uploads_life(alice: httpx.AsyncClient, world: World) -> None:
    made = await begun(alice)
    states = [(await job_of(alice, made))["status"]["state"]]
    put(world, made["transferDirectives"])
    for _ in range(5):
        await world.work()
        world.let_cluster_work()
        states.append((await job_of(alice, made))["status"]["state"])
    assert states == ["PENDING", "PENDING", "PENDING", "RUNNING", "COMPLETED", "COMPLETED"]
    job = await job_of(alice, made)
    assert (job["status"]["exitCode"], job["user"], job["cluster"]) == (0, "alice", "alps")


async def test_the_job_is_shown_in_firecrests_words_over_a_downloads_life(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file(TARGET, "alice", bytes(SIZE))
    made = (await alice.post(DOWNLOAD, json={"path": TARGET})).json()
    states = [(await job_of(alice, made))["status"]["state"]]
    for _ in range(3):
        world.let_cluster_work()
        await world.work()
        states.append((await job_of(alice, made))["status"]["state"])
    assert states == ["PENDING", "RUNNING", "COMPLETED", "COMPLETED"]
    world.clock.advance(20 * 24 * 3600)
    await world.work(2)
    assert (await world.the_transfer()).state is State.EXPIRED
    assert (await job_of(alice, made))["status"]["state"] == "COMPLETED"


@pytest.mark.parametrize(
    ("phase", "state"), [(JobPhase.TIMEOUT, "TIMEOUT"), (JobPhase.FAILED, "FAILED"), (JobPhase.COMPLETED, "FAILED")]
)
async def test_a_job_that_ended_badly_is_never_shown_as_completed(
    alice: httpx.AsyncClient, world: World, phase: JobPhase, state: str
) -> None:
    made = await begun(alice)
    put(world, made["transferDirectives"])
    await world.work(2)
    world.scheduler.set_phase(made["transferJob"]["jobId"], phase)
    for _ in range(3):
        await world.work(seconds=10)
        assert (await job_of(alice, made))["status"]["state"] != "COMPLETED"
    assert (await job_of(alice, made))["status"]["state"] == state
    assert (await job_of(alice, made))["status"]["exitCode"] != 0


async def test_a_cancelled_job_is_shown_so(alice: httpx.AsyncClient) -> None:
    made = await begun(alice)
    assert (await alice.delete(f"/transfers/{made['transferId']}")).json()["state"] == "cancelled"
    assert (await job_of(alice, made))["status"]["state"] == "CANCELLED"
    problem_or_same = await alice.delete(f"/transfers/{made['transferId']}")
    assert problem_or_same.json()["state"] == "cancelled"


async def test_the_job_is_shown_while_the_scheduler_is_away(alice: httpx.AsyncClient, world: World) -> None:
    made = await begun(alice)
    world.scheduler.unavailable = world.files.unavailable = world.store.failing = True
    assert (await job_of(alice, made))["status"]["state"] == "PENDING"


@pytest.mark.parametrize(
    ("path", "words"), [("/compute/alps/jobs/999", "Job not found"), ("/compute/nowhere/jobs/1", "System not found")]
)
async def test_an_unknown_job_is_404_with_the_words_that_firecrests_client_looks_for(
    alice: httpx.AsyncClient, path: str, words: str
) -> None:
    assert words in problem(await alice.get(path), 404)["message"]


async def test_an_id_that_was_used_again_shows_the_newest_job(alice: httpx.AsyncClient, world: World) -> None:
    await begun(alice)
    world.scheduler._next_id = 101
    world.scheduler.jobs.clear()
    world.clock.advance(1)
    second = await begun(alice, path="/home/alice/second")
    assert second["transferJob"]["jobId"] == "101"
    assert (await job_of(alice, second))["workingDirectory"] == second["transferJob"]["workingDirectory"]


async def failed_for_a_while(alice: httpx.AsyncClient, world: World) -> dict[str, Any]:
    """An upload for which there was no room; the object is kept."""
    limits = world.settings.systems[0].limits.model_copy(update={"keep_failed_seconds": 3600})
    object.__setattr__(world.settings.systems[0], "limits", limits)
    made = await begun(alice)
    put(world, made["transferDirectives"])
    await world.work(2)
    world.nodes.end_with(made["transferJob"]["jobId"], JobPhase.FAILED, "no_space")
    await world.work(2)
    return made


async def test_a_failed_transfer_is_retried_while_it_is_kept(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, world: World
) -> None:
    made = await failed_for_a_while(alice, world)
    route = f"/transfers/{made['transferId']}"
    shown = (await alice.get(route)).json()
    assert (shown["state"], shown["code"]) == ("failed", "no_space")
    assert shown["retryUntil"] > shown["endedAt"]
    problem(await bob.post(f"{route}/retry"), 404, "transfer_not_found")
    again = await alice.post(f"{route}/retry")
    assert (again.status_code, again.json()["state"], again.json()["retryUntil"]) == (200, "staged", None)
    problem(await alice.post(f"{route}/retry"), 409, "wrong_state")
    await world.work(3)
    for _ in range(3):
        world.let_cluster_work()
        await world.work(seconds=31)
    assert (await alice.get(route)).json()["state"] == "done"
    # Who asks for the job that was named first is answered under its number.
    job = await job_of(alice, made)
    assert (job["jobId"], job["status"]["state"]) == (made["transferJob"]["jobId"], "COMPLETED")


async def test_what_is_kept_of_a_failed_transfer_can_be_given_up(alice: httpx.AsyncClient, world: World) -> None:
    made = await failed_for_a_while(alice, world)
    route = f"/transfers/{made['transferId']}"
    dropped = (await alice.delete(route)).json()
    assert (dropped["state"], dropped["retryUntil"]) == ("failed", None)
    assert world.left_outside() == []
    problem(await alice.delete(route), 409, "wrong_state")
    assert "begin a new transfer" in problem(await alice.post(f"{route}/retry"), 409, "wrong_state")["message"]


async def test_too_many_transfers_under_way_are_refused(alice: httpx.AsyncClient, bob: httpx.AsyncClient, world: World) -> None:
    limits = world.settings.systems[0].limits.model_copy(update={"max_open_transfers_per_user": 2})
    object.__setattr__(world.settings.systems[0], "limits", limits)
    first = await begun(alice, path="/home/alice/1")
    await begun(alice, path="/home/alice/2")
    refused = await alice.post(UPLOAD, json=BODY)
    assert "2 transfers" in problem(refused, 429, "too_many_transfers")["message"]
    assert refused.headers["Retry-After"] == "60"
    await begun(bob, path="/home/bob/1")
    await alice.delete(f"/transfers/{first['transferId']}")
    await begun(alice)


async def test_health_needs_no_token_and_tells_the_truth(
    anonymous: httpx.AsyncClient, application: FastAPI, world: World
) -> None:
    assert (await anonymous.get("/healthz")).json()["status"] == "ok"

    async def dead() -> bool:
        return False

    tools: Toolbox = world.tools
    tools.transfers.is_alive = dead  # type: ignore[method-assign]
    answer = await anonymous.get("/healthz")
    assert (answer.status_code, answer.json()["database"]) == (503, False)


async def test_no_answer_holds_a_secret(alice: httpx.AsyncClient, world: World) -> None:
    made = await begun(alice)
    shown = json.dumps((await alice.get(f"/transfers/{made['transferId']}")).json())
    for secret in ("seal=", "uploadId", made["transferDirectives"]["completeUploadUrl"]):
        assert secret not in shown
