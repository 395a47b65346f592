"""FirecREST's published schema (v2; ``firecrest-v2.LICENSE``), as a judge of our answers and of our own document.

``firecrest-v2.openapi.json`` is that schema without its titles, descriptions and examples.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

Document = Mapping[str, Any]
METHODS = {"get", "put", "post", "delete"}
DOCUMENT: Document = json.loads(Path(__file__).with_name("firecrest-v2.openapi.json").read_text(encoding="utf-8"))


def complaints(schema_name: str, answer: object) -> list[str]:
    """What in ``answer`` is not as FirecREST says."""
    return _complaints({"$ref": f"#/components/schemas/{schema_name}"}, answer)


def complaints_about_answer(method: str, path: str, status: int, answer: object) -> list[str]:
    """The same, by what was asked and the status of the answer."""
    for (verb, known), operation in operations(DOCUMENT).items():
        if verb == method.lower() and re.fullmatch(known.replace("{}", "[^/]+"), path):
            responses = operation["responses"]
            found = responses.get(str(status)) or responses[f"{status // 100}XX"]
            return _complaints(found["content"]["application/json"]["schema"], answer)
    raise AssertionError(f"FirecREST has no {method} {path}")


def _complaints(schema: Document, answer: object) -> list[str]:
    found = jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).iter_errors(answer)
    return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in found]


def operations(document: Document) -> dict[tuple[str, str], Document]:
    """By method and path, whose parameters all have one name."""
    return {
        (method, re.sub(r"\{[a-z_]+\}", "{}", path)): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }


def differences(ours: Document) -> set[str]:
    """In what our document differs from FirecREST's on the routes that are FirecREST's, each in one line.

    ``-`` is what we have not, ``+`` what only we have, ``~`` what one of both alone requires. Names are those of
    parameters (``?a``), of what is in bodies (``body.a.b``) and in answers (``200.a.b``).
    """
    found, mine = set(), operations(ours)
    for route, theirs in operations(DOCUMENT).items():
        if route not in mine:
            found.add(f"- {' '.join(route)}")
            continue
        name = " ".join(route)
        their_names, our_names = dict(_said(DOCUMENT, theirs)), dict(_said(ours, mine[route]))
        found |= {f"- {name} {gone}" for gone in their_names.keys() - our_names.keys()}
        found |= {f"+ {name} {new}" for new in our_names.keys() - their_names.keys()}
        for both in their_names.keys() & our_names.keys():
            # An answer that always has what theirs may have is no difference.
            if their_names[both] > our_names[both]:
                found.add(f"~ {name} {both} is required by theirs alone")
            elif their_names[both] < our_names[both] and not both[0].isdigit():
                found.add(f"~ {name} {both} is required by ours alone")
    return found


def _said(document: Document, operation: Document) -> Iterator[tuple[str, bool]]:
    """Every name of an operation, and whether it is required."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            yield f"?{parameter['name']}", parameter.get("required", False)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"body {kind}", True
        yield from _names(document, content["schema"], "body", ())
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            yield status, True
            for kind, content in response.get("content", {}).items():
                yield f"{status} {kind}", True
                yield from _names(document, content.get("schema", {}), status, ())


def _names(document: Document, schema: Document, place: str, seen: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name not in seen:
            yield from _names(document, document["components"]["schemas"][name], place, (*seen, name))
        return
    inside = [schema.get("items"), schema.get("additionalProperties")]
    alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    for alternative in [*alternatives, *(one for one in inside if isinstance(one, dict) and one)]:
        yield from _names(document, alternative, place, seen)
    for name, inner in schema.get("properties", {}).items():
        yield f"{place}.{name}", name in schema.get("required", ())
        yield from _names(document, inner, f"{place}.{name}", seen)
