"""What FirecREST's client finds in a transfer's log, by which alone it takes the transfer for done."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.fakes.world import ALICE, BOB, World

from stagecoach.core.access import Caller
from stagecoach.core.errors import FileMissing, PathRefused, SystemUnavailable
from stagecoach.core.job_scripts import ERROR_FILE, OUTPUT_FILE
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.read_file import Window
from stagecoach.flows.view_file import PHRASES, SUCCESS, open_view
from stagecoach.ports.scheduler import JobPhase

CONTENT = b"content"
TARGET = "/home/alice/f"


async def viewed(
    world: World, transfer: Transfer, caller: Caller = ALICE, system: str = "alps", name: str = OUTPUT_FILE, **window: int
) -> str:
    path = f"{transfer.job_directory}/{name}"
    async with open_view(world.tools, caller, system, path, Window(**window)) as content:
        text = b"".join([piece async for piece in content.pieces])
        assert len(text) == content.size_bytes
        return text.decode()


async def moving_upload(world: World) -> Transfer:
    begun = await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT))
    assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    world.let_cluster_work()
    await world.work()
    return await world.the_transfer()


async def ended(world: World) -> Transfer:
    for _ in range(60):
        await world.work(seconds=10)
        transfer = await world.the_transfer()
        if transfer.state.is_end and transfer.cleaned:
            return transfer
    raise AssertionError(transfer.state)


async def test_the_phrase_is_there_when_the_file_is_and_stays_when_the_log_has_gone(world: World) -> None:
    moving = await moving_upload(world)
    # The mover has said its word; nobody has looked yet whether it is true.
    world.files.add_file(f"{moving.job_directory}/{OUTPUT_FILE}", "alice", f"begun\n{SUCCESS}moved\n".encode())
    assert await viewed(world, moving) == "begun\nmoved\n"
    world.let_cluster_work()
    transfer = await ended(world)
    assert transfer.state is State.DONE
    assert moving.job_directory not in world.files.entries
    log = await viewed(world, moving)
    assert log.count(SUCCESS) == 1
    assert log.endswith(SUCCESS)
    assert await viewed(world, moving, name=ERROR_FILE) == log
    assert await viewed(world, moving, offset=2, size_bytes=5) == log[2:7]


@pytest.mark.parametrize("said", ["", *(f"x {phrase} moved\n" for phrase in PHRASES)])
async def test_no_word_of_a_failed_job_is_taken_for_success(world: World, said: str) -> None:
    moving = await moving_upload(world)
    world.files.add_file(f"{moving.job_directory}/{OUTPUT_FILE}", "alice", f"begun\n{said}".encode())
    world.nodes.end_with(moving.job_id or "", JobPhase.FAILED, "no_space")
    assert (await ended(world)).state is State.FAILED
    log = await viewed(world, moving)
    assert log.startswith("begun\n")
    assert not any(phrase in log for phrase in PHRASES)


async def test_a_download_says_it_as_soon_as_it_is_staged(world: World) -> None:
    world.files.add_file(TARGET, "alice", CONTENT)
    begun = await begin_download(world.tools, ALICE, "alps", TARGET)
    assert SUCCESS not in await viewed(world, begun.transfer)
    for _ in range(4):
        world.let_cluster_work()
        await world.work()
    assert (await world.the_transfer()).state is State.STAGED
    assert (await viewed(world, begun.transfer)).endswith(SUCCESS)


async def test_what_is_proved_is_told_while_the_system_is_down(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(*_: object) -> bytes:
        raise SystemUnavailable("alps does not answer.")

    moving = await moving_upload(world)
    monkeypatch.setattr(world.files, "read_file", unreachable)
    with pytest.raises(SystemUnavailable):
        await viewed(world, moving)
    monkeypatch.undo()
    world.let_cluster_work()
    done = await ended(world)
    await world.transfers.save(replace(done, job_log=None), next_check_at=None)
    monkeypatch.setattr(world.files, "read_file", unreachable)
    assert await viewed(world, moving) == SUCCESS


async def test_it_is_for_the_owner_at_its_place_alone(world: World) -> None:
    moving = await moving_upload(world)
    world.let_cluster_work()
    await ended(world)
    for caller, system, name in ((BOB, "alps", OUTPUT_FILE), (ALICE, "bora", OUTPUT_FILE), (ALICE, "alps", "receipt.json")):
        with pytest.raises((FileMissing, PathRefused)):
            await viewed(world, moving, caller, system, name)
