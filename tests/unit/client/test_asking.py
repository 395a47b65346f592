"""What may pass is asked again, as the service says; what may not be asked twice is not."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest
from tests.unit.client.fake_service import ID, TOKEN, URL, FakeService, Patience, problem

from stagecoach.client import Client, ServiceError, TransferFailed
from stagecoach.client.asking import retry_after_seconds

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


@pytest.mark.parametrize("answer", BUSY, ids=lambda answer: type(answer).__name__)
async def test_a_beginning_is_asked_once(client: Client, service: FakeService, answer: httpx.Response | Exception) -> None:
    service.answers_first = [answer]
    with pytest.raises(ServiceError) as caught:
        await client.begin_upload("alps", "/scratch/a.bin", 1)
    assert len(service.asked) == 1
    assert caught.value.retryable


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
