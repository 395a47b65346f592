"""What docs/events.md tells receivers to do is what verifies our messages."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.receiver import SECRET

from stagecoach.core.webhooks import signed_headers

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/events.md").read_text(encoding="utf-8")


def recipe() -> Callable[..., bool]:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    found: Callable[..., bool] = names["is_from_stagecoach"]
    return found


def test_the_recipe_believes_our_messages_and_no_others() -> None:
    is_from_stagecoach, body, now = recipe(), '{"type":"transfer.state_changed","path":"/é"}'.encode(), int(time.time())
    headers = signed_headers(SECRET, "01hzy-00000004", now, body)
    assert is_from_stagecoach(SECRET, headers, body)
    assert is_from_stagecoach(SECRET, {**headers, "webhook-signature": f"v1,AAAA {headers['webhook-signature']}"}, body)
    assert not is_from_stagecoach(SECRET, headers, body + b" ")
    assert not is_from_stagecoach(SECRET, {**headers, "webhook-id": "other"}, body)
    assert not is_from_stagecoach("whsec_" + "A" * 40, headers, body)
    assert not is_from_stagecoach(SECRET, signed_headers(SECRET, "01hzy-00000004", now - 301, body), body)
