"""What every answer of the API has in common."""

from __future__ import annotations

from typing import Any

import httpx


def problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The one body of everything that is not a success, checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["f7t-appversion"] == "2.6.0"
    body: dict[str, Any] = answer.json()
    assert set(body) == {"errorType", "code", "message", "causedBy", "data", "user"}
    assert body["errorType"] in {"error", "validation"}
    assert body["message"]
    assert "\n" not in body["message"]
    if code is not None:
        assert body["code"] == code, body
    return body
