"""The routes of mv, cp, rm, compress and extract: FirecREST's bodies in both spellings, its answer, and every refusal."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.test_audit_log import acts, lines
from tests.unit.api.test_transfers import require_job

from stagecoach.core.file_commands import Compression
from stagecoach.core.operations import Operation, OperationOptions

BASE = "/filesystem/alps/transfer"
HOME = "/home/alice"
SOURCE, TARGET = f"{HOME}/a&b's", f"{HOME}/target"


@pytest.fixture(autouse=True)
def things(world: World) -> None:
    world.files.add_file(SOURCE, "alice", b"x" * 10)
    world.files.add_directory(f"{HOME}/out", "alice")


BODIES: list[tuple[str, dict[str, Any], OperationOptions]] = [
    ("mv", {"sourcePath": SOURCE, "targetPath": TARGET}, OperationOptions()),
    ("mv", {"source_path": SOURCE, "target_path": TARGET, "account": None}, OperationOptions()),
    ("cp", {"sourcePath": SOURCE, "targetPath": TARGET, "dereference": True}, OperationOptions(dereference=True)),
    ("cp", {"path": SOURCE, "targetPath": TARGET, "dereference": None, "account": ""}, OperationOptions()),
    (
        "compress",
        {
            "source_path": SOURCE,
            "target_path": TARGET,
            "dereference": False,
            "compression": "xz",
            "match_pattern": ".*",
        },
        OperationOptions(compression=Compression.XZ, match_pattern=".*"),
    ),
    ("compress", {"sourcePath": SOURCE, "targetPath": TARGET, "matchPattern": None}, OperationOptions()),
    (
        "extract",
        {"source_path": SOURCE, "target_path": f"{HOME}/out", "compression": "none"},
        OperationOptions(compression=Compression.NONE, merges=True),
    ),
]


@pytest.mark.parametrize(("operation", "body", "options"), BODIES)
async def test_each_body_that_clients_send(
    alice: httpx.AsyncClient, world: World, operation: str, body: dict[str, Any], options: OperationOptions
) -> None:
    answer = await alice.post(f"{BASE}/{operation}", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["f7t-appversion"] == "2.6.0"
    assert set(answer.json()) == {"transferJob", "transferId"}
    require_job(answer.json()["transferJob"], world)
    transfer = await world.the_transfer()
    assert (transfer.operation, transfer.operation_options, transfer.source_path) == (Operation(operation), options, SOURCE)
    assert world.left_in_store() == []


async def test_a_removal(alice: httpx.AsyncClient, world: World) -> None:
    answer = await alice.delete(f"{BASE}/rm", params={"path": SOURCE})
    assert (answer.status_code, set(answer.json())) == (200, {"transferJob", "transferId"})
    require_job(answer.json()["transferJob"], world)
    assert (await world.the_transfer()).path == SOURCE


async def test_it_is_a_transfer_like_the_others(alice: httpx.AsyncClient, bob: httpx.AsyncClient, world: World) -> None:
    begun = (await alice.post(f"{BASE}/cp", json={"sourcePath": SOURCE, "targetPath": TARGET})).json()
    job_id, transfer_id = begun["transferJob"]["jobId"], begun["transferId"]
    job = (await alice.get(f"/compute/alps/jobs/{job_id}")).json()["jobs"][0]
    assert (job["status"]["state"], job["jobId"]) == ("PENDING", job_id)
    world.nodes.move_some(job_id, 4)
    await world.work()
    shown = (await alice.get(f"/transfers/{transfer_id}")).json()
    told = {name: shown[name] for name in ("direction", "operation", "sourcePath", "path", "state", "archive", "partCount")}
    assert told == {
        "direction": "within",
        "operation": "cp",
        "sourcePath": SOURCE,
        "path": TARGET,
        "state": "moving",
        "archive": None,
        "partCount": None,
    }
    assert (shown["bytesMoved"], shown["sizeBytes"], shown["filesMoved"], shown["fileCount"]) == (4, 16, 2, 5)
    listed = (await alice.get("/transfers", params={"direction": "within"})).json()["transfers"]
    assert [one["id"] for one in listed] == [transfer_id]
    assert (await bob.get("/transfers", params={"direction": "within"})).json()["transfers"] == []
    problem(await bob.get(f"/transfers/{transfer_id}"), 404, "transfer_not_found")
    for method, path in (("GET", "parts"), ("POST", "finish"), ("GET", "download-url")):
        problem(await alice.request(method, f"/transfers/{transfer_id}/{path}"), 409, "wrong_state")
    cancelled = await alice.delete(f"/transfers/{transfer_id}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    job = (await alice.get(f"/compute/alps/jobs/{job_id}")).json()["jobs"][0]
    assert job["status"]["state"] == "CANCELLED"
    assert world.left_outside() == []


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("cp", {"sourcePath": f"{HOME}/nothing", "targetPath": TARGET}, 404, "file_missing"),
    ("cp", {"sourcePath": SOURCE}, 400, "validation"),
    ("cp", {"sourcePath": SOURCE, "targetPath": ""}, 400, "validation"),
    ("mv", {"sourcePath": SOURCE, "targetPath": "/etc/x"}, 400, "path_refused"),
    ("mv", {"sourcePath": SOURCE, "targetPath": SOURCE}, 400, "path_refused"),
    ("mv", {"sourcePath": SOURCE, "targetPath": f"{HOME}/../bob/x"}, 400, "path_refused"),
    ("mv", {"sourcePath": SOURCE, "targetPath": TARGET, "account": "a\nb"}, 400, "invalid_request"),
    ("compress", {"sourcePath": SOURCE, "targetPath": TARGET, "compression": "rar"}, 400, "validation"),
    ("compress", {"sourcePath": SOURCE, "targetPath": TARGET, "matchPattern": "\u0000"}, 400, "validation"),
    ("extract", {"sourcePath": SOURCE, "targetPath": f"{HOME}/nothing"}, 404, "file_missing"),
]


@pytest.mark.parametrize(("operation", "body", "status", "code"), REFUSED)
async def test_what_is_refused_leaves_nothing(
    alice: httpx.AsyncClient, world: World, operation: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await alice.post(f"{BASE}/{operation}", json=body)
    if code == "validation":
        assert (answer.status_code, answer.json()["errorType"]) == (400, "validation")
    else:
        problem(answer, status, code)
    assert (await world.all_transfers(), world.scheduler.jobs) == ([], {})


@pytest.mark.parametrize("method", ["streamer", "wormhole"])
@pytest.mark.parametrize("route", ["upload", "download"])
async def test_the_other_methods_answer_with_the_documented_refusal(
    alice: httpx.AsyncClient, world: World, route: str, method: str
) -> None:
    directives = {"transfer_method": method, "file_size": 10, "wormholeCode": "7-a-b"}
    answer = await alice.post(f"{BASE}/{route}", json={"path": SOURCE, "transfer_directives": directives})
    assert (answer.status_code, answer.json()["message"]) == (400, "Requested transfer method is not available.")
    assert await world.all_transfers() == []


async def test_the_same_request_again_answers_the_same_transfer(alice: httpx.AsyncClient, world: World) -> None:
    headers = {"Idempotency-Key": "key-1"}
    first = await alice.delete(f"{BASE}/rm", params={"path": SOURCE}, headers=headers)
    second = await alice.delete(f"{BASE}/rm", params={"path": SOURCE}, headers=headers)
    assert second.json() == {**first.json(), "transferState": "queued"}
    assert len(world.scheduler.jobs) == 1
    other = await alice.delete(f"{BASE}/rm", params={"path": f"{HOME}/out"}, headers=headers)
    problem(other, 422, "idempotency_key_reused")


async def test_who_did_what_is_written_down(alice: httpx.AsyncClient, world: World) -> None:
    begun = (await alice.post(f"{BASE}/mv", json={"sourcePath": SOURCE, "targetPath": TARGET})).json()
    await alice.delete(f"{BASE}/rm", params={"path": "/etc"})
    assert await acts(world) == [
        ("alice", "transfer.mv", begun["transferId"], "done"),
        ("alice", "transfer.rm", None, "path_refused"),
    ]
    assert [line.detail for line in await lines(world)] == [
        {"system": "alps", "path": SOURCE, "into": TARGET},
        {"system": "alps", "path": "/etc"},
    ]
