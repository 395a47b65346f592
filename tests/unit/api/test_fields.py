"""Every field of every request is bounded, and the document says how; what is no request at all has the one body too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tests.unit.api.answers import problem


def unbounded(document: dict[str, Any], schema: dict[str, Any], where: str) -> Iterator[str]:
    """Fields below ``where`` that may be of any length or size."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    for alternative in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from unbounded(document, alternative, where)
    kind = schema.get("type")
    if kind == "string" and not {"maxLength", "enum", "const"} & set(schema):
        # A pattern bounds as well, where it says how often each of its pieces may come.
        pattern = schema.get("pattern", "*")
        if not pattern.startswith("^") or not pattern.endswith("$") or any(sign in pattern for sign in ("*", "+", ",}")):
            yield where
    if kind in {"integer", "number"} and not {"minimum", "maximum"} <= set(schema):
        yield where
    if kind == "array":
        if "maxItems" not in schema:
            yield where
        yield from unbounded(document, schema["items"], f"{where}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        if "maxProperties" not in schema:
            yield where
        yield from unbounded(document, schema["additionalProperties"], f"{where}.*")
        yield from unbounded(document, {"type": "string", **schema.get("propertyNames", {})}, f"{where} (names)")
    for name, inner in schema.get("properties", {}).items():
        yield from unbounded(document, inner, f"{where}.{name}")


def fields(document: dict[str, Any]) -> Iterator[str]:
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            for parameter in operation.get("parameters", ()):
                yield from unbounded(document, parameter["schema"], f"{verb} {path} {parameter['name']}")
            for content in operation.get("requestBody", {}).get("content", {}).values():
                yield from unbounded(document, content["schema"], f"{verb} {path} body")


def test_every_field_of_every_request_is_bounded(application: FastAPI) -> None:
    assert list(fields(application.openapi())) == []


def test_a_field_that_is_not_bounded_is_found(application: FastAPI) -> None:
    document = application.openapi()
    parameters = document["paths"]["/transfers"]["get"]["parameters"]
    for schema in ({"type": "string"}, {"type": "string", "pattern": "^[a-z]*$"}, {"type": "integer", "minimum": 1}):
        parameters[0]["schema"] = {"anyOf": [schema, {"type": "null"}]}
        assert len(list(fields(document))) == 1
    del document["components"]["schemas"]["PartDigests"]["properties"]["values"]["maxItems"]
    assert "post /transfers/{transfer_id}/finish body.partDigests.values" in set(fields(document))


UPLOAD = "/filesystem/alps/transfer/upload"
DEEP = 50_000


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"[" * DEEP + b"]" * DEEP, "application/json"),
        (b'{"path":' * DEEP, "application/json"),
        (b'{"path": "/home/alice/x", "fileSize": ' + b"9" * 5000 + b"}", "application/json"),
        (b'{"path": "/home/alice/\\ud800", "fileSize": 1}', "application/json"),
        (b'{"path": "/home/alice/x", "fileSize": NaN}', "application/json"),
        (b'{"path": "/home/alice/x", "fileSize": 1}', "text/plain"),
        (b"path=x", "application/x-www-form-urlencoded"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"null", "application/json"),
        (b"", "application/json"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_what_is_no_json_object_is_refused(alice: httpx.AsyncClient, content: bytes, content_type: str) -> None:
    answer = await alice.post(UPLOAD, content=content, headers={"Content-Type": content_type})
    body = problem(answer, 400, "validation_error")
    assert len(answer.content) < 4000, "it does not send back what it got"
    assert body["errorType"] == "validation"


@pytest.mark.parametrize("path", ["/transfers/", "/transfers/%00", "/transfers/%ff%fe", "/%2e%2e/etc", "//", "/transfers/x/y/z"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
async def test_unknown_routes_and_methods_never_end_otherwise(alice: httpx.AsyncClient, method: str, path: str) -> None:
    # The one of these that has a body is right, so that it is the path that is refused.
    body = {"rateLimitBytesPerSecond": None} if method == "PATCH" else None
    answer = await alice.request(method, path, json=body)
    assert answer.status_code in {404, 405}
    problem(answer, answer.status_code)


@pytest.mark.parametrize("name", ["alps;id", "a/b", "al ps", "%00", "é", "..", "x" * 65, "$(id)", "%ff"])
async def test_a_name_that_no_system_can_have_is_refused(alice: httpx.AsyncClient, name: str) -> None:
    for path in (f"/filesystem/{name}/ops/ls?path=/", f"/compute/{name}/jobs/1"):
        answer = await alice.get(path)
        problem(answer, 404 if "/" in name or name == ".." else 400)


async def test_a_repeated_or_overlong_header_is_refused(alice: httpx.AsyncClient) -> None:
    story = {"Last-Event-ID": "1" * 65}
    problem(await alice.get("/transfers/x/events", headers=story), 400, "validation_error")
    key = {"Idempotency-Key": "k" * 600}
    body = {"path": "/home/alice/x", "fileSize": 1}
    assert (await alice.post(UPLOAD, json=body, headers=key)).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/accounts/me", "GET"),
        ("PATCH", "/accounts/sessions", "DELETE, POST"),
        ("GET", "/accounts/password", "PUT"),
        ("GET", "/accounts/somebody", "PUT"),
        ("PUT", "/transfers/one", "DELETE, GET, PATCH"),
    ],
)
async def test_a_refused_method_names_those_that_the_document_has_for_the_path(
    alice: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await alice.request(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("key", "is_one"),
    [
        ("a", True),
        ("!~" * 127, True),
        ("a" * 256, False),
        ('"a"', True),
        (r'"a\"\\"', True),
        ('"' + r"\"" * 255 + '"', True),
        ('"' + "a" * 256 + '"', False),
        ('a"', True),
        ('"a', False),
        ('""', False),
        (r'"\a"', False),
        ("a b", False),
        ('"a b"', False),
    ],
)
async def test_the_document_says_what_an_idempotency_key_is(
    application: FastAPI, alice: httpx.AsyncClient, key: str, is_one: bool
) -> None:
    parameters = application.openapi()["paths"]["/filesystem/{system}/transfer/upload"]["post"]["parameters"]
    (schema,) = (parameter["schema"] for parameter in parameters if parameter["name"] == "Idempotency-Key")
    assert (re.search(schema["pattern"], key) is not None) is is_one
    body = {"path": "/home/alice/big.bin", "fileSize": 1}
    answer = await alice.post("/filesystem/alps/transfer/upload", json=body, headers={"Idempotency-Key": key})
    assert answer.status_code == (201 if is_one else 400), answer.text
