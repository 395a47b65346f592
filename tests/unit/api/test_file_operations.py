"""FirecREST's file operations behind the door: who may call them, what the audit log keeps, bodies in all their spellings."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.world import World
from tests.unit.api.answers import problem

from stagecoach.api.access import Guard, declared_routes
from stagecoach.core.access import Scope
from stagecoach.core.audit_log import AuditFilter

OPS = "/filesystem/alps/ops"
HOME = "/home/alice"
READS = {"ls", "head", "tail", "view", "checksum", "file", "stat", "download"}
WRITES = {"chmod", "chown", "symlink", "mkdir", "rm", "compress", "extract", "upload"}


def test_what_changes_files_needs_another_scope_than_what_reads_them(application: FastAPI) -> None:
    found = {}
    for route in declared_routes(application):
        if route.path.startswith("/filesystem/{system}/ops/"):
            (guard,) = route.declares
            assert isinstance(guard, Guard)
            found[route.path.rsplit("/", 1)[1]] = guard.scope
    assert found == {**dict.fromkeys(READS, Scope.FILES_READ), **dict.fromkeys(WRITES, Scope.FILES_WRITE)}


async def send(caller: httpx.AsyncClient, verb: str, where: str, **body: Any) -> httpx.Response:
    if where == "upload":
        return await caller.post(f"{OPS}/upload", params={"path": body["path"]}, files={"file": ("f", b"x")})
    if verb in {"GET", "DELETE"}:
        return await caller.request(verb, f"{OPS}/{where}", params=body)
    return await caller.request(verb, f"{OPS}/{where}", json=body)


ACTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", "mkdir", {"path": f"{HOME}/d"}, "file.mkdir"),
    ("POST", "upload", {"path": HOME}, "file.upload"),
    ("GET", "download", {"path": f"{HOME}/there"}, "file.download"),
    ("PUT", "chmod", {"path": f"{HOME}/there", "mode": "600"}, "file.chmod"),
    ("PUT", "chown", {"path": f"{HOME}/there", "owner": "alice", "group": None}, "file.chown"),
    ("POST", "symlink", {"sourcePath": f"{HOME}/there", "linkPath": f"{HOME}/l"}, "file.symlink"),
    ("POST", "compress", {"source_path": f"{HOME}/there", "target_path": f"{HOME}/a", "match_pattern": None}, "file.compress"),
    ("POST", "extract", {"source_path": f"{HOME}/a.tar", "target_path": HOME}, "file.extract"),
    ("DELETE", "rm", {"path": f"{HOME}/there"}, "file.rm"),
]


@pytest.mark.parametrize(("verb", "where", "body", "act"), ACTS, ids=lambda value: str(value)[:12])
async def test_each_act_leaves_a_line_that_says_who_what_and_whether(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, world: World, verb: str, where: str, body: dict[str, Any], act: str
) -> None:
    world.files.add_file(f"{HOME}/there", "alice", b"content")
    await send(alice, "POST", "compress", path=f"{HOME}/there", targetPath=f"{HOME}/a.tar")
    answer = await send(alice, verb, where, **body)
    assert answer.is_success, answer.text
    assert not (await send(bob, verb, where, **body)).is_success
    lines = await world.tools.audit_log.page(AuditFilter())
    done, refused = [line for line in lines if line.what == act][-2:]
    assert (done.who, done.target, done.result) == ("alice", "alps", "done")
    assert done.detail["path"] in {HOME, f"{HOME}/there", f"{HOME}/d", f"{HOME}/l", f"{HOME}/a.tar"}
    assert (refused.who, refused.result) == ("bob", "path_refused")


async def test_questions_leave_no_line(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file(f"{HOME}/f", "alice", b"content")
    for where in READS - {"download"}:
        assert (await send(alice, "GET", where, path=f"{HOME}/f")).status_code == 200
    assert [line for line in await world.tools.audit_log.page(AuditFilter()) if line.what.startswith("file.")] == []


@pytest.mark.parametrize("key", ["path", "sourcePath", "source_path"])
async def test_a_body_is_understood_in_all_spellings(alice: httpx.AsyncClient, world: World, key: str) -> None:
    assert (await send(alice, "POST", "mkdir", **{key: f"{HOME}/{key}"})).status_code == 201
    world.files.add_file(f"{HOME}/f", "alice", b"content")
    for target in ("targetPath", "target_path"):
        answer = await send(alice, "POST", "compress", **{key: f"{HOME}/f", target: f"{HOME}/a", "more": 1})
        assert answer.status_code == 204, answer.text
    for link in ("linkPath", "link_path"):
        assert (await send(alice, "POST", "symlink", **{key: f"{HOME}/f", link: f"{HOME}/{link}"})).status_code == 201


@pytest.mark.parametrize(
    ("where", "body"),
    [
        ("chmod", {"mode": "888"}),
        ("chmod", {"mode": "u+x"}),
        ("chmod", {"mode": ""}),
        ("chmod", {"mode": "6000000"}),
        ("chmod", {}),
        ("chown", {"owner": "a b"}),
        ("chown", {"owner": "a:b"}),
        ("chown", {"group": "x" * 65}),
        ("chown", {}),
    ],
)
async def test_modes_and_owners_that_are_none(alice: httpx.AsyncClient, world: World, where: str, body: dict[str, str]) -> None:
    world.files.add_file(f"{HOME}/f", "alice", b"content", 0o640)
    problem(await send(alice, "PUT", where, path=f"{HOME}/f", **body), 400)
    assert world.files.entries[f"{HOME}/f"].mode == 0o640


async def test_what_the_system_does_not_permit(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_directory(f"{HOME}/roots", "root", 0o755)
    world.files.add_file(f"{HOME}/roots/f", "root", b"x", 0o600)
    for where in ("view", "head", "tail", "checksum", "download"):
        problem(await send(alice, "GET", where, path=f"{HOME}/roots/f"), 403, "permission_denied")
    problem(await send(alice, "PUT", "chmod", path=f"{HOME}/roots/f", mode="666"), 403, "permission_denied")
    problem(await send(alice, "POST", "upload", path=f"{HOME}/roots"), 403, "permission_denied")
    problem(await send(alice, "POST", "mkdir", path=f"{HOME}/roots/d"), 403, "permission_denied")
    problem(await send(alice, "DELETE", "rm", path=f"{HOME}/roots/f"), 403, "permission_denied")


async def test_a_system_that_is_away_is_one(alice: httpx.AsyncClient, world: World) -> None:
    world.files.unavailable = True
    for where in READS:
        problem(await send(alice, "GET", where, path=HOME), 503, "system_unavailable")
    problem(await send(alice, "POST", "upload", path=HOME), 503, "system_unavailable")
