"""Answers of the running service, held to FirecREST's published schema: status, files, jobs, and refusals."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conformance.firecrest_schema import complaints, complaints_about_answer
from tests.integration.firecrest.service import SYSTEM, FirecrestService

OPS = f"/filesystem/{SYSTEM}/ops"


@pytest.fixture
def caller(service: FirecrestService) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {service.token}"}
    with httpx.Client(base_url=service.url, headers=headers, timeout=60) as client:
        yield client


def test_the_judge_complains() -> None:
    assert complaints("GetNodesResponse", {"nodes": [{"name": "n1", "cpus": 1, "state": ["ASLEEP"]}]})
    assert complaints("GetJobResponse", {"jobs": [{"jobId": 7}]})
    assert complaints_about_answer("get", f"{OPS}/ls", 200, {"output": [{"name": "x"}]})
    assert complaints_about_answer("get", f"{OPS}/ls", 404, {})
    assert not complaints_about_answer("get", f"{OPS}/view", 200, {"output": "x"})


@pytest.mark.parametrize(
    "path",
    [
        "/status/systems",
        f"/status/{SYSTEM}/nodes",
        f"/status/{SYSTEM}/partitions",
        f"/status/{SYSTEM}/reservations",
        f"/status/{SYSTEM}/userinfo",
        "/status/liveness/",
        f"/compute/{SYSTEM}/jobs",
    ],
)
def test_of_status(caller: httpx.Client, path: str) -> None:
    answer = caller.get(path)
    assert answer.status_code == 200, answer.text
    assert complaints_about_answer("get", path, 200, answer.json()) == []


def test_of_a_job(caller: httpx.Client, top: Path) -> None:
    job = {"workingDirectory": str(top), "script": "#!/bin/sh\ntrue\n"}
    submitted = caller.post(f"/compute/{SYSTEM}/jobs", json={"job": job})
    assert submitted.status_code == 201, submitted.text
    assert complaints("PostJobSubmissionResponse", submitted.json()) == []
    path = f"/compute/{SYSTEM}/jobs/{submitted.json()['jobId']}"
    deadline = time.monotonic() + 30
    while True:
        shown = caller.get(path).json()
        assert complaints("GetJobResponse", shown) == []
        if shown["jobs"][0]["status"]["state"] == "COMPLETED":
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert complaints("GetJobMetadataResponse", caller.get(f"{path}/metadata").json()) == []


def test_of_files(caller: httpx.Client, top: Path) -> None:
    (top / "f").write_bytes(b"text\n")
    (top / "l").symlink_to("f")
    os.mkfifo(top / "p")
    at, seen = f"{top}/f", set()
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("get", "ls", {"path": str(top), "dereference": "true"}),
        ("get", "head", {"path": at, "bytes": 3, "skipTrailing": "true"}),
        ("get", "tail", {"path": at}),
        ("get", "view", {"path": at, "size": 2, "offset": 1}),
        ("get", "checksum", {"path": at}),
        ("get", "file", {"path": at}),
        ("get", "stat", {"path": f"{top}/l"}),
        ("put", "chmod", {"sourcePath": at, "mode": "0600"}),
        ("put", "chown", {"sourcePath": at, "owner": str(os.getuid()), "group": ""}),
        ("post", "mkdir", {"sourcePath": f"{top}/d", "parent": False}),
        ("post", "symlink", {"sourcePath": at, "linkPath": f"{top}/new"}),
    ]
    for method, route, fields in asked:
        for broken in (False, True):
            sent = {**fields, "path" if "path" in fields else "sourcePath": f"{top}/no/such"} if broken else fields
            answer = caller.request(method, f"{OPS}/{route}", **{"params" if method == "get" else "json": sent})
            assert answer.is_success != broken or route == "symlink", (route, answer.text)
            assert complaints_about_answer(method, f"{OPS}/{route}", answer.status_code, answer.json()) == []
            seen.add(answer.status_code)
    assert seen >= {200, 201, 404}


def test_of_refusals(caller: httpx.Client, top: Path) -> None:
    (top / "f").write_bytes(b"text\n")
    for answer in (
        caller.get(f"/compute/{SYSTEM}/jobs/99999999"),
        caller.get("/status/nope/nodes"),
        caller.post(f"/compute/{SYSTEM}/jobs"),
        caller.delete(f"{OPS}/rm", params={"path": f"{top}/none"}),
        caller.get(f"{OPS}/view", params={"path": "relative"}),
        caller.post(f"{OPS}/compress", json={}),
        caller.put(f"{OPS}/chmod", json={"path": f"{top}/f", "mode": "rwx"}),
        caller.get("/status/systems", headers={"Authorization": "Bearer none"}),
    ):
        assert answer.status_code >= 400
        assert complaints("ApiResponseError", answer.json()) == []
        assert complaints_about_answer(answer.request.method, answer.request.url.path, answer.status_code, answer.json()) == []
