"""What FirecREST's clients rely on at every one of its routes: headers, ids, bodies of errors, capitals and spellings of keys."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from packaging.version import parse
from tests.conformance.firecrest_schema import DOCUMENT, complaints, operations
from tests.unit.api.answers import problem

ROUTES = sorted(operations(DOCUMENT))
# Not there yet; unit/api/test_firecrest_schema.py has them as a difference.
ROUTES = [route for route in ROUTES if not re.search("/transfer/(mv|cp|rm|compress|extract)", route[1])]
OPEN = ("get", "/status/liveness/")
OPS, TRANSFER = "/filesystem/nowhere/ops", "/filesystem/nowhere/transfer"
# What is understood in two spellings, in FirecREST's own.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("put", f"{OPS}/chmod"): {"sourcePath": "/home/alice/f", "mode": "600"},
    ("put", f"{OPS}/chown"): {"sourcePath": "/home/alice/f", "owner": "alice", "group": None},
    ("post", f"{OPS}/mkdir"): {"sourcePath": "/home/alice/d", "parent": True},
    ("post", f"{OPS}/symlink"): {"sourcePath": "/home/alice/f", "linkPath": "/home/alice/l"},
    ("post", f"{OPS}/compress"): {
        "sourcePath": "/home/alice/f",
        "targetPath": "/home/alice/a",
        "matchPattern": None,
        "compression": "gzip",
    },
    ("post", f"{OPS}/extract"): {"sourcePath": "/home/alice/a", "targetPath": "/home/alice/d"},
    ("post", f"{TRANSFER}/upload"): {
        "sourcePath": "/home/alice/f",
        "account": "",
        "transferDirectives": {"fileSize": "7340032", "transferMethod": "s3"},
        "unknownKey": 1,
    },
    ("post", f"{TRANSFER}/download"): {"sourcePath": "/home/alice/f", "transferDirectives": {"transferMethod": "s3"}},
    ("post", "/compute/nowhere/jobs"): {"job": {"workingDirectory": "/home/alice", "scriptPath": "/home/alice/s", "account": ""}},
}


def path_of(route: tuple[str, str], system: str = "alps") -> str:
    return route[1].replace("{}", system, 1).replace("{}", "101")


def in_snake_case(value: Any) -> Any:
    if isinstance(value, dict):
        return {re.sub("([A-Z])", lambda found: "_" + found[1].lower(), key): in_snake_case(one) for key, one in value.items()}
    return value


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_a_stranger_is_refused_in_its_form(anonymous: httpx.AsyncClient, route: tuple[str, str]) -> None:
    ids = {"X-Request-ID": "request-1", "X-Correlation-ID": "correlation-1"}
    answer = await anonymous.request(route[0], path_of(route), headers=ids)
    assert parse(answer.headers["f7t-appversion"]) >= parse("2.6.0")
    assert answer.headers["f7t-timestamp"]
    assert (answer.headers["x-request-id"], answer.headers["x-correlation-id"]) == ("request-1", "correlation-1")
    if route == OPEN:
        assert answer.status_code == 200
        return
    assert complaints("ApiResponseError", problem(answer, 401)) == []
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("route", [route for route in ROUTES if "{}" in route[1]], ids=" ".join)
async def test_a_system_that_is_not_there(alice: httpx.AsyncClient, route: tuple[str, str]) -> None:
    path = path_of(route, "nowhere")
    body = BODIES.get((route[0], path), {"command": "true"} if path.endswith("/attach") else None)
    query = {"path": "/home/alice/f"} if "/ops/" in path and body is None else None
    files = {"file": ("f", b"x")} if path.endswith("/ops/upload") else None
    answer = await alice.request(route[0], path, params=query, json=body, files=files)
    found = problem(answer, 404, "system_not_found")
    assert found["message"].startswith("System not found")
    assert found["user"] == answer.headers["f7t-authusername"] == "alice"


@pytest.mark.parametrize("route", BODIES, ids=" ".join)
async def test_keys_are_understood_in_both_spellings(alice: httpx.AsyncClient, route: tuple[str, str]) -> None:
    for body in (BODIES[route], in_snake_case(BODIES[route])):
        problem(await alice.request(*route, json=body), 404, "system_not_found")


@pytest.mark.parametrize("route", BODIES, ids=" ".join)
async def test_what_breaks_a_rule_is_a_400_that_names_the_field(alice: httpx.AsyncClient, route: tuple[str, str]) -> None:
    for body in ({}, {**BODIES[route], "sourcePath": 7, "job": 7}):
        found = problem(await alice.request(*route, json=body), 400)
        assert complaints("ApiResponseError", found) == []
        if body:
            assert found["errorType"] == "validation"
            (field,) = found["data"]["fields"]
            assert field["location"] == "body"
            assert field["name"] in {"path", "sourcePath", "job"}
            assert field["message"]


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_capitals_in_a_path_count_for_nothing(
    alice: httpx.AsyncClient, anonymous: httpx.AsyncClient, route: tuple[str, str]
) -> None:
    for client in (anonymous, alice):
        for system in ("alps", "nowhere"):
            path = path_of(route, system)
            lower, upper = await client.request(route[0], path), await client.request(route[0], path.upper())
            assert upper.status_code == lower.status_code
            assert not upper.is_success or upper.headers["content-type"] == lower.headers["content-type"]
            if not lower.is_success:
                assert upper.json()["code"] == lower.json()["code"] not in {"route_not_found", "method_not_allowed"}


async def test_capitals_count_in_queries_and_in_our_own_routes(alice: httpx.AsyncClient) -> None:
    missing = problem(await alice.get("/FileSystem/ALPS/ops/Stat", params={"path": "/home/alice/No Such"}), 404)
    assert "/home/alice/No Such" in missing["message"]
    problem(await alice.get("/Transfers"), 404, "route_not_found")
