"""What may pass is asked again, as the service says; what may not be asked twice is not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from tests.unit.client.fake_service import ID, TOKEN, URL, FakeService, Patience, problem

from stagecoach.client import Client, ServiceError, TransferFailed
from stagecoach.client.asking import Asking, retry_after_seconds

BUSY = [problem(503, "system_unavailable"), problem(429, "too_many"), httpx.ConnectError("x"), httpx.ReadTimeout("x")]


async def test_wait_survives_a_service_that_is_away_and_honours_retry_after(
    client: Client, service: FakeService, patience: Patience
) -> None:
    service.state = "done"
    service.answers_first = [problem(503, "unavailable", **{"Retry-After": "42"}), *BUSY]
    assert (await client.wait(ID)).state == "done"
    assert patience.pauses[0] == 42
    assert patience.pauses[1:] == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("ask", ["finish", "cancel", "transfer", "parts"])
async def test_what_may_be_asked_twice_is(client: Client, service: FakeService, ask: str) -> None:
    service.answers_first = list(BUSY)
    await getattr(client, ask)(ID)
    assert len(service.asked) == 5


@pytest.mark.parametrize("direction", ["upload", "download"])
async def test_a_beginning_is_asked_again_with_the_same_key(client: Client, service: FakeService, direction: str) -> None:
    """A lost answer (the last two) must not make a second transfer."""
    service.answers_first = [problem(409, "request_under_way", **{"Retry-After": "1"}), *BUSY]
    service.store.objects["object"] = b"x"
    begin = client.begin_upload("alps", "/a", 1) if direction == "upload" else client.begin_download("alps", "/a")
    assert (await begin).transfer_id == ID
    assert len(service.keys) == 6
    assert len(set(service.keys)) == 1
    assert len(service.keys[0]) >= 32
    await client.begin_upload("alps", "/a", 1)
    await client.begin_upload("alps", "/a", 1, idempotency_key="mine")
    assert service.keys[6] != service.keys[0]
    assert service.keys[7] == "mine"


async def test_a_beginning_whose_process_died_is_waited_for_until_it_was_given_up(
    client: Client, service: FakeService, patience: Patience
) -> None:
    service.answers_first = [problem(409, "request_under_way", **{"Retry-After": "1"}) for _ in range(40)]
    assert (await client.begin_upload("alps", "/a", 1)).transfer_id == ID
    assert 180 <= patience.now <= 300
    service.answers_first = [problem(409, "request_under_way", **{"Retry-After": "1"}) for _ in range(200)]
    with pytest.raises(ServiceError) as caught:
        await client.begin_upload("alps", "/a", 1)
    assert caught.value.retryable


async def test_a_beginning_that_is_refused_is_asked_once(client: Client, service: FakeService) -> None:
    service.answers_first = [problem(422, "idempotency_key_reused")]
    with pytest.raises(ServiceError) as caught:
        await client.begin_upload("alps", "/a", 1)
    assert (len(service.asked), caught.value.code) == (1, "idempotency_key_reused")


async def test_an_upload_that_was_begun_and_completed_before_is_not_sent_again(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"x")
    service.is_repeated, service.state = True, "staged"
    service.store.completed = True
    carried = await client.upload("alps", tmp_path / "a", "/a")
    assert (carried.state, service.store.parts) == ("done", {})


async def test_patience_ends(client: Client, service: FakeService, patience: Patience) -> None:
    service.answers_first = [httpx.ConnectError(f"{URL} {TOKEN}") for _ in range(100)]
    with pytest.raises(ServiceError) as caught:
        await client.transfer(ID)
    assert (caught.value.code, caught.value.status, caught.value.transfer_id) == ("service_unreachable", 0, ID)
    assert TOKEN not in caught.value.message
    assert f"stagecoach transfers resume {ID}" in (caught.value.next_step or "")
    assert 45 <= patience.now <= 60


async def test_a_refusal_is_not_asked_again(client: Client, service: FakeService) -> None:
    service.answers_first = [problem(403, "permission_denied", "You may not.")]
    with pytest.raises(ServiceError) as caught:
        await client.transfer(ID)
    assert (caught.value.status, caught.value.code, caught.value.message) == (403, "permission_denied", "You may not.")
    assert len(service.asked) == 1


async def test_what_is_no_stagecoach_is_told(client: Client, service: FakeService) -> None:
    service.answers_first = [httpx.Response(200, text="<html>A proxy's page</html>")]
    with pytest.raises(ServiceError, match="is the URL right"):
        await client.transfers()


async def test_a_transfer_that_failed_raises_with_its_code(client: Client, service: FakeService) -> None:
    service.state, service.code, service.reason = "failed", "no_space", "The quota is used up."
    with pytest.raises(TransferFailed) as caught:
        await client.wait(ID)
    assert (caught.value.code, caught.value.message, caught.value.transfer_id) == ("no_space", "The quota is used up.", ID)
    assert not caught.value.retryable
    assert f"transfers show {ID}" in (caught.value.next_step or "")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("10", 10), (" 3 ", 3), ("Thu, 01 Jan 2026 00:00:30 GMT", 30), ("Thu, 01 Jan 2020 00:00:00 GMT", 0), ("soon", None)],
)
def test_both_forms_of_retry_after_are_understood(header: str, seconds: float | None) -> None:
    assert retry_after_seconds(header, datetime(2026, 1, 1, tzinfo=UTC)) == seconds


class Renewing:
    """Has one token after the other, and a new one when one was refused."""

    def __init__(self) -> None:
        self.number = 1
        self.refused: list[str | None] = []

    async def __call__(self, refused: str | None = None) -> str:
        self.refused.append(refused)
        if refused == f"token-{self.number}":
            self.number += 1
        return f"token-{self.number}"


@pytest.mark.parametrize("taken", [{"token-1"}, {"token-2"}, set()])
async def test_a_token_that_is_refused_on_the_way_is_renewed_once(taken: set[str]) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        seen.append((token, request.content))
        return httpx.Response(200, json={"ok": True}) if token in taken else problem(401, "not_authenticated")

    source = Renewing()
    asking = Asking(URL, source, timeout_seconds=1, patience_seconds=0, transport=httpx.MockTransport(answer))
    if taken:
        assert await asking.once("POST", "/x", json={"a": 1}) == {"ok": True}
    else:
        with pytest.raises(ServiceError, match="It says why"):
            await asking.once("POST", "/x", json={"a": 1})
    assert [token for token, _ in seen] == (["token-1"] if taken == {"token-1"} else ["token-1", "token-2"])
    assert {content for _, content in seen} == {b'{"a":1}'}
    await asking.aclose()
