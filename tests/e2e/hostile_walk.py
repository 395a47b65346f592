"""Walks openapi/openapi.json and puts the hostile things of the corpus in each place of each route: one request at a time.

Each place gets one in ``EVERY`` of them, the next place the ones after those: what reads a kind of place is the same for many
routes, and so meets them all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.e2e import hostile_corpus as corpus
from tests.e2e.hostile_corpus import Canary
from tests.e2e.testbed import REPOSITORY

METHODS = ("get", "post", "put", "patch", "delete")
MAX_URL_WORD = 5000
EVERY = 3


def read_document() -> dict[str, Any]:
    """The OpenAPI document of this version."""
    document: dict[str, Any] = json.loads((REPOSITORY / "openapi" / "openapi.json").read_text(encoding="utf-8"))
    return document


@dataclass(frozen=True)
class Case:
    """One request with one hostile thing in it."""

    method: str
    route: str
    place: str
    word: str
    url: str
    headers: dict[str, bytes] = field(default_factory=dict)
    content: bytes | None = None
    is_refused_token: bool = False
    """A token that is none, where the document lets nobody in without one or the route looks at what is brought."""

    def __str__(self) -> str:
        return f"{self.method} {self.route}, {self.place} = {self.word[:120]!a}"


class Walk:
    """Turns the OpenAPI document into cases."""

    def __init__(self, home: str, outside: str, canary: Canary, *, transfer_id: str, job_id: str, system: str) -> None:
        self._document = read_document()
        self._places_so_far = 0
        self._good = {
            "system": system,
            "transfer_id": transfer_id,
            "job_id": job_id,
            "path": f"{home}/file",
            "fileName": "file",
            "fileSize": 4,
            "transferMethod": "s3",
            "targetPath": f"{home}/made",
            "linkPath": f"{home}/link",
        }
        commands = corpus.commands(canary)
        named = [f"{home}/{word}" for word in (*corpus.commands(canary, relative=True), *corpus.ODD_WORDS[::2])]
        self._words: dict[str, list[Any]] = {
            "path": [*corpus.paths(home, outside), *named],
            "account": [*corpus.ACCOUNTS, *commands, *corpus.ODD_WORDS],
            "system": [*corpus.SYSTEMS, *commands, *corpus.ODD_WORDS],
            "": [*commands[::5], *corpus.ODD_WORDS[::4]],
        }

    def words_of(self, place: str) -> list[Any]:
        """What a place of this name is given."""
        kind = place.rsplit(".", 1)[-1].lower()
        return self._words[next((name for name in ("path", "account", "system") if name in kind), "")]

    def _share(self, things: list[Any]) -> list[Any]:
        """What the next place is given of all ``things`` of its kind."""
        self._places_so_far += 1
        return things[self._places_so_far % EVERY :: EVERY]

    @property
    def corpus_size(self) -> int:
        """How many different hostile things there are."""
        words = {json.dumps(word) for words in self._words.values() for word in (*words, *corpus.ODD_VALUES)}
        return len(words) + len(corpus.TOKENS) + len(corpus.bodies({}))

    def cases(self) -> Iterator[Case]:
        for route, operations in self._document["paths"].items():
            for method in METHODS:
                if method in operations:
                    yield from self._of(method.upper(), route, operations[method])

    def _of(self, method: str, route: str, operation: dict[str, Any]) -> Iterator[Case]:
        parameters = operation.get("parameters", [])
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        base = self._example(schema) if schema else None
        body = json.dumps(base).encode() if isinstance(base, dict) else None
        json_header = {"content-type": b"application/json"} if body is not None else {}
        good = {item["name"]: str(self._good.get(item["name"], "x")) for item in parameters}
        needed = {item["name"] for item in parameters if item["in"] == "query" and item.get("required")}

        def url(name: str = "", value: str = "", where: str = "") -> str:
            filled = route
            for item in parameters:
                if item["in"] == "path":
                    chosen = value if item["name"] == name else good[item["name"]]
                    filled = filled.replace("{" + item["name"] + "}", _quoted(chosen))
            query = {each: good[each] for each in needed}
            if where == "query":
                query[name] = value
            return filled + ("?" + "&".join(f"{_quoted(k)}={_quoted(v)}" for k, v in query.items()) if query else "")

        for item in parameters:
            for word in self._share(self.words_of(item["name"])):
                name, where = item["name"], item["in"]
                if where == "header":
                    headers = {**json_header, name: _header(word)}
                    yield Case(method, route, f"header {name}", word, url(), headers, body)
                elif word or where != "path":
                    yield Case(method, route, f"{where} {name}", word, url(name, word, where), json_header, body)
        security = operation.get("security", [{}])
        for token in corpus.TOKENS:
            headers = {**json_header, "authorization": _header(token)}
            is_bearer = len(token.split()) > 1 and token.startswith("Bearer ")
            is_refused = {} not in security or (any(security) and is_bearer)
            yield Case(method, route, "token", token, url(), headers, body, is_refused)
        if isinstance(base, dict):
            for place in self._places(schema):
                for word in self._share([*self.words_of(place), *corpus.ODD_VALUES]):
                    content = json.dumps(_with(base, place, word)).encode()
                    yield Case(method, route, f"body {place}", repr(word), url(), json_header, content)
            for kind, content in corpus.bodies(base):
                headers = {"content-type": kind.encode("latin-1")}
                yield Case(method, route, f"whole body as {kind}", repr(content[:40]), url(), headers, content)

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in schema:
            return self._resolved(self._document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
        for kind in ("anyOf", "oneOf", "allOf"):
            options = [self._resolved(option) for option in schema.get(kind, [])]
            if options:
                return next((option for option in options if option.get("type") == "object"), options[0])
        return schema

    def _example(self, schema: dict[str, Any], name: str = "") -> Any:
        """Something valid, with what stands in the document's own example and what we know better."""
        schema = self._resolved(schema)
        if name in self._good:
            return self._good[name]
        if schema.get("examples"):
            return _known(schema["examples"][0], self._good)
        if schema.get("type") == "object":
            properties = schema.get("properties", {})
            return {each: self._example(properties[each], each) for each in schema.get("required", []) if each in properties}
        return {"integer": 1, "number": 1, "boolean": False, "array": []}.get(schema.get("type", ""), "x")

    def _places(self, schema: dict[str, Any], above: str = "", depth: int = 0) -> Iterator[str]:
        for name, inner in self._resolved(schema).get("properties", {}).items():
            place = f"{above}.{name}" if above else name
            yield place
            if depth < 3:
                yield from self._places(inner, place, depth + 1)


def _known(example: Any, good: dict[str, Any]) -> Any:
    if isinstance(example, dict):
        return {name: _known(good.get(name, value), good) for name, value in example.items()}
    return example


def _with(base: dict[str, Any], place: str, word: Any) -> dict[str, Any]:
    name, _, rest = place.partition(".")
    if not rest:
        return {**base, name: word}
    inner = base.get(name)
    return {**base, name: _with(inner if isinstance(inner, dict) else {}, rest, word)}


def _header(value: str) -> bytes:
    """Without what the client's own library would not send: control characters, blanks at the ends."""
    return re.sub(rb"[\x00-\x1f\x7f]", b" ", value.encode("utf-8", "replace"))[:MAX_URL_WORD].strip()


def _quoted(value: str) -> str:
    """As a URL carries it; what is longer never gets past a server's own limit of a request line."""
    return quote(value[:MAX_URL_WORD].encode("utf-8", "surrogatepass"), safe="")
