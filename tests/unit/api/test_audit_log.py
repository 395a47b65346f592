"""Who did what, when, from where, and what came of it: written down for each thing that people do, and never changed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError
from tests.fakes.systems import put_by_urls
from tests.fakes.world import World, open_world, world_settings
from tests.unit.api.answers import problem
from tests.unit.api.conftest import with_token

from stagecoach.api import audit_trail
from stagecoach.core.audit_log import AuditFilter, AuditLine
from stagecoach.core.errors import DatabaseUnavailable
from stagecoach.flows.record_act import audit_lines, forget_old_lines, record_act

UPLOAD, DOWNLOAD = "/filesystem/alps/transfer/upload", "/filesystem/alps/transfer/download"
BODY: dict[str, Any] = {"path": "/home/alice/x", "transferDirectives": {"fileSize": 10}}


async def lines(world: World, **wanted: Any) -> list[AuditLine]:
    return [line async for line in audit_lines(world.tools, AuditFilter(**wanted))]


async def acts(world: World) -> list[tuple[str | None, str, str | None, str]]:
    return [(line.who, line.what, line.target, line.result) for line in await lines(world)]


async def test_what_people_do_with_transfers_is_written_down(
    world: World, alice: httpx.AsyncClient, bob: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    headers = {"X-Request-Id": "r-1"}
    begun = (await alice.post(UPLOAD, json=BODY, headers=headers)).json()
    up = begun["transferId"]
    directives = begun["transferDirectives"]
    assert put_by_urls(world.store.follow, bytes(10), 8388608, directives["partsUploadUrls"], directives["completeUploadUrl"])
    await alice.post(f"/transfers/{up}/finish")
    await bob.delete(f"/transfers/{up}")
    await admin.delete(f"/transfers/{up}")
    await alice.post(f"/transfers/{up}/retry")
    world.files.add_file("/home/alice/y", "alice", bytes(10))
    down = (await alice.post(DOWNLOAD, json={"path": "/home/alice/y"})).json()["transferId"]
    await alice.get(f"/transfers/{down}/download-url")
    await alice.post(UPLOAD, json={**BODY, "path": "/etc/x"})
    assert await acts(world) == [
        ("alice", "transfer.upload", up, "done"),
        ("alice", "transfer.finish", up, "done"),
        ("bob", "transfer.cancel", up, "transfer_not_found"),
        ("carol", "transfer.cancel", up, "done"),
        ("alice", "transfer.retry", up, "wrong_state"),
        ("alice", "transfer.download", down, "done"),
        ("alice", "transfer.download-url", down, "wrong_state"),
        ("alice", "transfer.upload", None, "path_refused"),
    ]
    first = (await lines(world))[0]
    assert (first.at, first.address, first.request_id) == (world.clock.now(), "127.0.0.1", "r-1")
    assert first.detail == {"system": "alps", "path": "/home/alice/x", "size_bytes": 10}
    assert not [line for line in await lines(world) if "Signature" in json.dumps(dict(line.detail))]


async def test_looking_is_not_written_down(world: World, alice: httpx.AsyncClient) -> None:
    for path in ("/transfers", "/transfers/x", "/filesystem/alps/ops/ls?path=/home/alice", "/compute/alps/jobs/1"):
        await alice.get(path)
    assert await acts(world) == []


async def test_an_unforeseen_failure_is_written_down_too(world: World, alice: httpx.AsyncClient) -> None:
    async def broken(*arguments: object) -> None:
        raise RuntimeError("inside")

    world.tools.transfers.usage = broken  # type: ignore[method-assign, assignment]
    assert (await alice.post(UPLOAD, json=BODY)).status_code == 500
    assert await acts(world) == [("alice", "transfer.upload", None, "internal_error")]


async def test_a_token_that_does_not_hold_is_written_down_but_not_each_of_thousands(
    world: World, application: FastAPI, anonymous: httpx.AsyncClient
) -> None:
    await anonymous.get("/transfers")
    async with with_token(application, "no.token.at-all") as forger:
        for _ in range(audit_trail.REFUSALS_PER_MINUTE_OF_ADDRESS + 5):
            problem(await forger.get("/transfers"), 401)
    written = await lines(world)
    assert len(written) == audit_trail.REFUSALS_PER_MINUTE_OF_ADDRESS
    assert {(line.who, line.what, line.target, line.result) for line in written} == {
        (None, "authentication.refused", "/transfers", "not_authenticated")
    }
    assert "at-all" not in json.dumps([dict(line.detail) for line in written])


async def test_the_log_is_exported_by_time_and_by_pages(world: World, admin: httpx.AsyncClient, alice: httpx.AsyncClient) -> None:
    begins = world.clock.now()
    for number in range(7):
        await record_act(world.tools, "alice" if number % 2 else "bob", "token.made", f"t{number}", detail={"number": number})
        world.clock.advance(60)

    async def exported(**wanted: Any) -> list[dict[str, Any]]:
        answer = await admin.get("/admin/audit", params=wanted)
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]

    everything = await exported()
    assert [line["target"] for line in everything] == [f"t{number}" for number in range(7)]
    assert set(everything[0]) == {"number", "at", "who", "what", "target", "result", "address", "request_id", "detail"}
    since, until = (begins + timedelta(seconds=60 * minutes) for minutes in (2, 5))
    assert [line["target"] for line in await exported(since=since.isoformat(), until=until.isoformat())] == ["t2", "t3", "t4"]
    assert [line["target"] for line in await exported(who="alice")] == ["t1", "t3", "t5"]
    paged, after = [], 0
    while page := await exported(limit=3, after=after):
        paged += page
        after = page[-1]["number"]
    assert paged == everything
    assert [line async for line in audit_lines(world.tools, AuditFilter(limit=10**9))] == await lines(world)
    problem(await admin.get("/admin/audit", params={"since": "2030-02-30T00:00:00Z"}), 400, "validation_error")
    problem(await admin.get("/admin/audit", params={"since": "yesterday"}), 400, "validation_error")
    for edge in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        problem(await admin.get("/admin/audit", params={"until": edge}), 400, "validation_error")
    problem(await alice.get("/admin/audit"), 403, "permission_denied")


async def test_no_line_can_be_changed(world: World) -> None:
    await record_act(world.tools, "alice", "token.made", "t")
    async with world.engine.begin() as connection:
        with pytest.raises(DatabaseError, match="append-only"):
            await connection.execute(text("UPDATE audit_log SET who = 'bob'"))
    assert await acts(world) == [("alice", "token.made", "t", "done")]


async def test_text_that_is_too_long_or_strange_is_written_all_the_same(world: World) -> None:
    await record_act(world.tools, "a" * 300, "x" * 100, "nul\0", address="z" * 100, request_id="r" * 200)
    (line,) = await lines(world)
    assert (len(line.who or ""), len(line.what), line.target) == (255, 64, "nul\ufffd")


async def test_what_was_done_is_done_even_if_it_cannot_be_written_down(
    world: World, alice: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*arguments: object) -> None:
        raise DatabaseUnavailable("The database does not answer.")

    world.tools.audit_log.append = away  # type: ignore[method-assign, assignment]
    assert (await alice.post(UPLOAD, json=BODY)).status_code == 201
    (record,) = [record for record in caplog.records if "missing in the audit log" in record.getMessage()]
    assert '"who": "alice", "what": "transfer.upload"' in record.getMessage()


async def test_old_lines_are_kept_for_ever_or_as_long_as_the_settings_say(tmp_path: Path, database_template: Path) -> None:
    for keep_days, left in ((0, ["old", "new"]), (30, ["new"])):
        directory = tmp_path / str(keep_days)
        directory.mkdir()
        settings = world_settings()
        settings = settings.model_copy(update={"audit_log": settings.audit_log.model_copy(update={"keep_days": keep_days})})
        async with open_world(directory, database_template, settings) as world:
            await record_act(world.tools, "alice", "token.made", "old")
            world.clock.advance(31 * 86_400)
            await record_act(world.tools, "alice", "token.made", "new")
            assert await forget_old_lines(world.tools) == 2 - len(left)
            assert [line.target for line in await lines(world)] == left
