"""The same request with the same Idempotency-Key makes one transfer, however often and whenever it comes."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from tests.fakes.world import ALICE, Crash, Process, World
from tests.unit.api.answers import problem
from tests.unit.api.test_transfers import BODY, DOWNLOAD, SIZE, TARGET, UPLOAD, put

from stagecoach.api.idempotency import repeatable_request
from stagecoach.core.transfer import State
from stagecoach.flows.begin_transfer import begin_upload
from stagecoach.wire.firecrest import UploadRequest

KEY = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
DOWN = {"path": TARGET, "transferDirectives": {}}


async def repeated(client: httpx.AsyncClient, body: dict[str, Any] = BODY, route: str = UPLOAD) -> dict[str, Any]:
    answer = await client.post(route, json=body, headers=KEY)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_repeated_upload_is_the_same_transfer_with_urls_that_work(alice: httpx.AsyncClient, world: World) -> None:
    first = await repeated(alice)
    world.clock.advance(10)
    again = await repeated(alice)
    assert "transferState" not in first
    assert (again["transferId"], again["transferState"]) == (first["transferId"], "receiving")
    assert again["transferJob"] == first["transferJob"]
    assert again["transferDirectives"] != first["transferDirectives"]
    assert len(world.scheduler.jobs) == 1
    put(world, again["transferDirectives"])
    await world.work()
    assert (await world.the_transfer()).state is State.STAGED


async def test_a_repeated_download_is_the_same_transfer(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file(TARGET, "alice", bytes(SIZE))
    first, again = await repeated(alice, DOWN, DOWNLOAD), await repeated(alice, DOWN, DOWNLOAD)
    assert (again["transferId"], again["transferState"]) == (first["transferId"], "queued")
    assert again["transferDirectives"]["downloadUrl"]
    assert len(world.scheduler.jobs) == 1


@pytest.mark.parametrize("flat", [False, True])
async def test_what_takes_no_parts_any_more_is_answered_as_it_is_and_without_urls(
    alice: httpx.AsyncClient, world: World, flat: bool
) -> None:
    body = {"path": TARGET, "fileSize": SIZE} if flat else BODY
    first = await repeated(alice, body)
    put(world, first if flat else first["transferDirectives"])
    await world.work()
    staged = await repeated(alice, body)
    assert (staged["transferId"], staged["transferState"]) == (first["transferId"], "staged")
    assert not [name for name in str(staged).split("'") if name.endswith(("Url", "Urls"))]
    await alice.delete(f"/transfers/{first['transferId']}")
    assert (await repeated(alice, body))["transferState"] == "cancelled"
    assert len(await world.all_transfers()) == 1


async def test_a_download_that_has_ended_has_no_url(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file(TARGET, "alice", bytes(SIZE))
    for body in (DOWN, {"path": TARGET}):
        first = (await alice.post(DOWNLOAD, json=body, headers={"Idempotency-Key": str(len(body))})).json()
        await alice.delete(f"/transfers/{first['transferId']}")
        again = (await alice.post(DOWNLOAD, json=body, headers={"Idempotency-Key": str(len(body))})).json()
        assert again["transferState"] == "cancelled"
        assert "downloadUrl" not in (again.get("transferDirectives") or again)


async def test_the_same_key_with_another_request_is_refused(alice: httpx.AsyncClient, world: World) -> None:
    first = await repeated(alice)
    world.files.add_file(TARGET, "alice", bytes(SIZE))
    others: list[tuple[str, dict[str, Any]]] = [
        (UPLOAD, {**BODY, "path": TARGET + "2"}),
        (UPLOAD, {**BODY, "transferDirectives": {"fileSize": SIZE + 1}}),
        (UPLOAD, {**BODY, "sha256": "ab" * 32}),
        (UPLOAD.replace("alps", "bora"), {**BODY, "account": "proj"}),
        (DOWNLOAD, DOWN),
    ]
    for route, body in others:
        refused = await alice.post(route, json=body, headers=KEY)
        assert problem(refused, 422, "idempotency_key_reused")["data"] == {"transfer_id": first["transferId"]}
    assert len(await world.all_transfers()) == 1


async def test_the_same_request_in_other_words_is_the_same(alice: httpx.AsyncClient, world: World) -> None:
    words: list[dict[str, Any]] = [
        {"path": TARGET, "transfer_directives": {"file_size": str(SIZE), "transfer_method": "s3"}},
        {"sourcePath": TARGET, "account": "", "transferDirectives": {"fileSize": SIZE}},
    ]
    first = await repeated(alice)
    for body in words:
        assert (await repeated(alice, body))["transferId"] == first["transferId"]
    quoted = await alice.post(UPLOAD, json=BODY, headers={"Idempotency-Key": f'"{KEY["Idempotency-Key"]}"'})
    assert quoted.json()["transferId"] == first["transferId"]


async def test_keys_are_each_users_own(alice: httpx.AsyncClient, bob: httpx.AsyncClient, world: World) -> None:
    first = await repeated(alice)
    other = await repeated(bob, {**BODY, "path": "/home/bob/big.bin"})
    assert other["transferId"] != first["transferId"]
    assert "transferState" not in other


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é", "tab\tin", '"open', '"in"side"', "\x7f"])
async def test_a_key_that_is_none_is_refused_before_anything_is_made(alice: httpx.AsyncClient, world: World, key: str) -> None:
    refused = await alice.post(UPLOAD, json=BODY, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert "visible ASCII" in problem(refused, 400, "invalid_request")["message"]
    assert await world.all_transfers() == []


async def test_a_key_sent_twice_is_refused(alice: httpx.AsyncClient, world: World) -> None:
    problem(await alice.post(UPLOAD, json=BODY, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")]), 400)
    assert await world.all_transfers() == []


async def test_the_longest_key_is_taken(alice: httpx.AsyncClient, world: World) -> None:
    long = {"Idempotency-Key": "~!" * 127 + "x"}
    ids = {(await alice.post(UPLOAD, json=BODY, headers=long)).json()["transferId"] for _ in range(2)}
    assert len(ids) == 1


async def test_requests_that_race_make_one_transfer(alice: httpx.AsyncClient, world: World) -> None:
    async def ask_until_answered() -> str:
        for _ in range(100):
            answer = await alice.post(UPLOAD, json=BODY, headers=KEY)
            if answer.status_code == 201:
                return str(answer.json()["transferId"])
            assert problem(answer, 409, "request_under_way")["message"]
            assert answer.headers["retry-after"] == "1"
            await asyncio.sleep(0)
        raise AssertionError("never answered")

    ids = await asyncio.gather(*(ask_until_answered() for _ in range(20)))
    assert len(set(ids)) == 1
    assert len(world.scheduler.jobs) == 1
    assert world.scheduler.count("submit") == 1
    assert (await world.the_transfer()).id == ids[0]


async def test_a_request_meanwhile_is_told_to_come_back(
    alice: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, met = world.scheduler.submit, []

    async def slow(*arguments: Any) -> Any:
        met.append(await alice.post(UPLOAD, json=BODY, headers=KEY))
        return await submit(*arguments)

    monkeypatch.setattr(world.scheduler, "submit", slow)
    first = await repeated(alice)
    assert problem(met[0], 409, "request_under_way")["data"] == {"transfer_id": first["transferId"]}


async def test_a_request_that_failed_begins_anew_with_its_key(alice: httpx.AsyncClient, world: World) -> None:
    world.scheduler.unavailable = True
    problem(await alice.post(UPLOAD, json=BODY, headers=KEY), 503, "system_unavailable")
    world.scheduler.unavailable = False
    begun = await repeated(alice)
    assert "transferState" not in begun
    old, new = sorted(await world.all_transfers(), key=lambda transfer: transfer.id == begun["transferId"])
    assert (old.state, old.idempotency_key, old.request_digest is not None) == (State.FAILED, None, True)
    assert (new.state, new.idempotency_key) == (State.RECEIVING, KEY["Idempotency-Key"])
    put(world, begun["transferDirectives"])


async def test_a_request_whose_process_died_begins_anew_once_it_was_given_up(alice: httpx.AsyncClient, world: World) -> None:
    same = repeatable_request(KEY["Idempotency-Key"], "alps", "upload", UploadRequest.model_validate(BODY))

    class DiesAtItsSubmission(Process):
        async def run(self, name: str, call: Any) -> Any:
            self.is_dead = self.is_dead or name == "MemoryScheduler.submit"
            return await super().run(name, call)

    with pytest.raises(Crash):
        await begin_upload(world.toolbox(DiesAtItsSubmission()), ALICE, "alps", TARGET, SIZE, repeatable=same)
    assert (await world.the_transfer()).state is State.PREPARING
    problem(await alice.post(UPLOAD, json=BODY, headers=KEY), 409, "request_under_way")
    await world.work(seconds=181)
    assert (await world.the_transfer()).code == "interrupted"
    begun = await repeated(alice)
    put(world, begun["transferDirectives"])
    await world.work(5, seconds=1)
    states = {transfer.id == begun["transferId"]: transfer.state for transfer in await world.all_transfers()}
    assert states == {False: State.FAILED, True: State.QUEUED}


async def test_a_transfer_that_failed_later_keeps_its_key(alice: httpx.AsyncClient, world: World) -> None:
    first = await repeated(alice)
    transfer = await world.the_transfer()
    await world.store.abort_multipart(transfer.bucket, f"{transfer.id}/data", transfer.upload_id or "")
    await world.work(5, seconds=100)
    assert (await world.the_transfer()).code == "upload_gone"
    again = await repeated(alice)
    assert (again["transferId"], again["transferState"]) == (first["transferId"], "failed")


async def test_without_a_key_every_request_is_a_new_one(alice: httpx.AsyncClient, world: World) -> None:
    answers = [await alice.post(UPLOAD, json=BODY) for _ in range(2)]
    assert len({answer.json()["transferId"] for answer in answers}) == 2
