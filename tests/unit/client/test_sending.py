"""From one system to another: begun once, waited for, and no business of this machine's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from tests.unit.client.fake_nodes import SCOPE
from tests.unit.client.fake_service import ID, TOKEN, URL, FakeService

from stagecoach.client import Client, Place, ServiceError, TransferFailed
from stagecoach.client.sync import Client as SyncClient
from stagecoach.wire.transfers import TransferDetail

SOURCE, DESTINATION = "alps:/home/alice/a", "bora:/scratch/b"
ENDS = {"source": {"system": "alps", "path": "/home/alice/a"}, "destination": {"system": "bora", "path": "/scratch/b"}}


async def test_it_is_waited_for_to_its_end(client: Client, service: FakeService) -> None:
    service.looks_until_done = 3
    looks: list[TransferDetail] = []
    begun: list[str] = []
    done = await client.send(SOURCE, DESTINATION, account="acc", on_look=looks.append, on_begun=begun.append)
    assert (done.state, begun, len(looks)) == ("done", [ID], 3)
    assert service.begun_with == {**ENDS, "account": "acc"}
    assert [leg.leg for leg in looks[0].legs] == ["source", "destination"]
    assert not any("/parts" in what or "/finish" in what for what in service.asked)


async def test_a_lost_answer_begins_no_second_one(client: Client, service: FakeService) -> None:
    service.looks_until_done = 1
    service.answers_first = [httpx.ConnectError("gone"), httpx.Response(503, json={"code": "x", "message": "Later."})]
    await client.send(Place("alps", "/home/alice/a"), Place("bora", "/b"), archive=False)
    assert len(service.keys) == 3
    assert len(set(service.keys)) == 1
    assert service.begun_with["destination"] == {"system": "bora", "path": "/b"}


async def test_a_node_is_found_by_its_name(client: Client, service: FakeService) -> None:
    service.looks_until_done = 1
    await client.send("alps:/home/alice/a", "node:scope:/b")
    assert service.begun_with["destination"] == {"system": f"node:{SCOPE}", "path": "/b"}


async def test_a_directory_says_so(client: Client, service: FakeService) -> None:
    service.names_directory, service.looks_until_done = True, 1
    await client.send(SOURCE, DESTINATION, archive=True)
    assert service.begun_with["archive"] == "tar"
    with pytest.raises(ServiceError) as refused:
        await client.send(SOURCE, DESTINATION)
    assert refused.value.code == "not_a_file"


@pytest.mark.parametrize("place", ["/home/alice/a", "alps", "alps:a", "node::/x", ""])
async def test_both_ends_are_places_on_systems(client: Client, service: FakeService, place: str) -> None:
    for ends in ((place, DESTINATION), (SOURCE, place)):
        with pytest.raises(ValueError, match="SYSTEM:/path"):
            await client.send(*ends)
    assert service.asked == []


async def test_its_failure_is_told(client: Client, service: FakeService) -> None:
    service.state, service.code, service.reason = "failed", "no_space", "On its source, alps: no room."
    with pytest.raises(TransferFailed) as failed:
        await client.send(SOURCE, DESTINATION)
    assert (failed.value.code, failed.value.message) == ("no_space", "On its source, alps: no room.")


async def test_who_stops_waiting_while_it_is_begun_knows_its_id(client: Client, service: FakeService) -> None:
    begun: list[str] = []
    sending = asyncio.create_task(client.send(SOURCE, DESTINATION, on_begun=begun.append))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert begun == [ID]


async def test_resuming_it_waits_and_needs_no_local_file(client: Client, service: FakeService, tmp_path: Path) -> None:
    service.source, service.destination = ENDS["source"], ENDS["destination"]
    service.looks_until_done = 3
    assert (await client.resume(ID)).state == "done"
    assert not any("/parts" in what for what in service.asked)
    assert not (tmp_path / "state").exists()


def test_programs_that_are_not_asynchronous(service: FakeService) -> None:
    service.looks_until_done = 1
    with SyncClient(URL, TOKEN, transport=service.transport()) as client:
        assert client.send(SOURCE, DESTINATION).state == "done"


async def test_a_road_and_a_cap_are_asked_for(client: Client, service: FakeService) -> None:
    service.looks_until_done = 1
    await client.send("node:scope:/a", "node:scope:/b", road="direct", rate_limit=10**6)
    assert (service.begun_with["road"], service.begun_with["rateLimitBytesPerSecond"]) == ("direct", 10**6)
