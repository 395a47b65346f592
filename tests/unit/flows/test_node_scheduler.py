"""A node's queue as a scheduler: what the port promises, of all that does not need a script to run.

The contract suite of the port submits scripts, which no node runs; its other promises are repeated here word for word.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

import pytest
from tests.fakes.world import ALICE, World
from tests.unit.core.transfers import a_transfer

from stagecoach.core import names
from stagecoach.core.errors import JobNotFound, NodeUnsupported, SubmissionRefused, SystemNotFound
from stagecoach.core.nodes import AgentReport, Node, node_id_of, system_name
from stagecoach.core.transfer import Direction
from stagecoach.flows.change_node import revoke_node
from stagecoach.flows.enrol_node import enrol_node
from stagecoach.flows.register_node import register_node
from stagecoach.ports.scheduler import JobKey, JobPhase, JobReport, JobRequest, Scheduler

INSTANCE = "instance00000001"
NOBODYS = "0" * 26


@pytest.fixture
async def node(world: World) -> Node:
    """Enrolled, of alice."""
    made = await register_node(world.tools, ALICE, "archive")
    enrolled = await enrol_node(world.tools, made.enrolment_token, INSTANCE, version="1", platform="x", address=None)
    return enrolled.node


@pytest.fixture
def scheduler(world: World, node: Node) -> Scheduler:
    return world.tools.system(system_name(node.id)).scheduler


async def a_request(world: World, *, held: bool = False, direction: Direction = Direction.UPLOAD) -> JobRequest:
    """Of a transfer that there is."""
    transfer = replace(a_transfer(), id=world.tools.new_id(), direction=direction, created_at=world.clock.now())
    await world.transfers.add(transfer, "Asked for.")
    return JobRequest(names.job_name(transfer.id), "", "", "", "", held)


async def report(scheduler: Scheduler, job_id: str, request: JobRequest) -> JobReport | None:
    return (await scheduler.reports([JobKey(job_id, request.name, "alice")])).get(job_id)


async def test_a_job_is_held_released_and_cancelled(world: World, scheduler: Scheduler, node: Node) -> None:
    request = await a_request(world, held=True)
    job_id = await scheduler.submit("alice", request)
    held = await report(scheduler, job_id, request)
    assert held is not None
    assert (held.phase, held.state, held.name, held.user) == (JobPhase.HELD, "HELD", request.name, "alice")
    with pytest.raises(JobNotFound):
        await scheduler.release("bob", job_id)
    for _ in range(2):
        await scheduler.release("alice", job_id)
    pending = await report(scheduler, job_id, request)
    assert pending is not None
    assert pending.phase is JobPhase.PENDING
    await scheduler.cancel("bob", job_id)
    assert (await report(scheduler, job_id, request)) == pending
    for _ in range(2):
        await scheduler.cancel("alice", job_id)
    await scheduler.release("alice", job_id)
    cancelled = await report(scheduler, job_id, request)
    assert cancelled is not None
    assert (cancelled.phase, cancelled.exit_code) == (JobPhase.CANCELLED, None)


@pytest.mark.parametrize(("direction", "kind"), [(Direction.UPLOAD, "fetch"), (Direction.DOWNLOAD, "put")])
async def test_the_command_says_which_way(
    world: World, scheduler: Scheduler, node: Node, direction: Direction, kind: str
) -> None:
    request = await a_request(world, direction=direction)
    job_id = await scheduler.submit("alice", request)
    command = await world.tools.node_commands.get(node.id, job_id)
    assert command is not None
    assert command.spec == {"direction": kind}


@pytest.mark.parametrize(
    ("exit_code", "phase", "reason"),
    [(0, JobPhase.COMPLETED, ""), (7, JobPhase.FAILED, "No space."), (-9, JobPhase.FAILED, "No space.")],
)
async def test_a_job_ends_as_its_agent_says(
    world: World, scheduler: Scheduler, node: Node, exit_code: int, phase: JobPhase, reason: str
) -> None:
    request = await a_request(world)
    job_id = await scheduler.submit("alice", request)
    lease = world.settings.nodes.lease_seconds
    await world.tools.node_polls.exchange(node.id, AgentReport(INSTANCE, "1", "x", capacity=1), world.clock.now(), lease)
    delivered = await report(scheduler, job_id, request)
    assert delivered is not None
    assert delivered.phase is JobPhase.PENDING
    await world.tools.node_commands.note_start(node.id, job_id, 1, world.clock.now(), world.tools.soon(lease))
    running = await report(scheduler, job_id, request)
    assert running is not None
    assert (running.phase, running.nodes, running.start_time) == (JobPhase.RUNNING, "archive", int(world.clock.now().timestamp()))
    result = {"exit_code": exit_code, "message": "No space."}
    await world.tools.node_commands.note_end(node.id, job_id, 1, result, world.clock.now())
    await scheduler.cancel("alice", job_id)
    ended = await report(scheduler, job_id, request)
    assert ended is not None
    assert (ended.phase, ended.exit_code, ended.reason) == (phase, exit_code, reason)


async def test_a_job_whose_agent_is_away_waits_or_has_ended(world: World, scheduler: Scheduler, node: Node) -> None:
    request = await a_request(world)
    job_id = await scheduler.submit("alice", request)
    lease = world.settings.nodes.lease_seconds
    await world.tools.node_polls.exchange(node.id, AgentReport(INSTANCE, "1", "x", capacity=1), world.clock.now(), lease)
    await world.tools.node_commands.note_start(node.id, job_id, 1, world.clock.now(), world.tools.soon(lease))
    world.clock.advance(lease)
    away = await report(scheduler, job_id, request)
    assert away is not None
    assert (away.phase, away.reason) == (JobPhase.PENDING, "NodeOffline")
    await scheduler.cancel("alice", job_id)
    gone = await report(scheduler, job_id, request)
    assert gone is not None
    assert gone.phase is JobPhase.CANCELLED


async def test_unknown_jobs(world: World, scheduler: Scheduler) -> None:
    await scheduler.cancel("alice", NOBODYS)
    with pytest.raises(JobNotFound):
        await scheduler.release("alice", NOBODYS)
    assert await scheduler.find("alice", f"stagecoach-{secrets.token_hex(8)}") == []
    assert await scheduler.reports([]) == {}
    assert await scheduler.reports([JobKey(f"{number:026}", "stagecoach-x", "alice") for number in range(5000)]) == {}


async def test_a_job_with_the_same_id_and_another_name_or_owner_is_not_the_one(world: World, scheduler: Scheduler) -> None:
    request = await a_request(world, held=True)
    job_id = await scheduler.submit("alice", request)
    assert await scheduler.reports([JobKey(job_id, "stagecoach-other", "alice")]) == {}
    assert await scheduler.reports([JobKey(job_id, request.name, "bob")]) == {}
    both = [JobKey(NOBODYS, "stagecoach-other", "alice"), JobKey(job_id, request.name, "alice")]
    assert set(await scheduler.reports(both)) == {job_id}


async def test_a_job_is_found_by_its_name_and_never_made_twice(world: World, scheduler: Scheduler) -> None:
    request = await a_request(world, held=True)
    ids = await asyncio.gather(*(scheduler.submit("alice", request) for _ in range(4)))
    assert len(set(ids)) == 1
    longer = replace(request, name=f"{request.name}-2")
    other_id = await scheduler.submit("alice", longer)
    found = await scheduler.find("alice", request.name)
    assert [(job.job_id, job.phase) for job in found] == [(ids[0], JobPhase.HELD)]
    assert await scheduler.find("bob", request.name) == []
    await scheduler.cancel("alice", ids[0])
    again = await scheduler.submit("alice", request)
    assert again not in {*ids, other_id}


async def test_open_jobs_are_listed_by_the_beginning_of_their_names(world: World, scheduler: Scheduler) -> None:
    request, ended = await a_request(world, held=True), await a_request(world)
    job_id = await scheduler.submit("alice", request)
    await scheduler.cancel("alice", await scheduler.submit("alice", ended))
    for of_everyone in (False, True):
        listed = await scheduler.list_open_jobs("alice", "stagecoach-", of_everyone=of_everyone)
        assert [(job.job_id, job.name, job.user) for job in listed] == [(job_id, request.name, "alice")]
    assert await scheduler.list_open_jobs("bob", "stagecoach-", of_everyone=False) == []
    assert len(await scheduler.list_open_jobs("bob", "stagecoach-", of_everyone=True)) == 1
    assert await scheduler.list_open_jobs("alice", "x", of_everyone=True) == []


async def test_what_is_no_transfers_job_is_refused_and_everything_at_a_revoked_node(
    world: World, scheduler: Scheduler, node: Node
) -> None:
    request = await a_request(world)
    for name in ("job", names.job_name(NOBODYS)):
        with pytest.raises(SubmissionRefused):
            await scheduler.submit("alice", replace(request, name=name))
    job_id = await scheduler.submit("alice", request)
    await revoke_node(world.tools, ALICE, node.id)
    with pytest.raises(SubmissionRefused, match="revoked"):
        await scheduler.submit("alice", await a_request(world))
    gone = await report(scheduler, job_id, request)
    assert gone is not None
    assert (gone.phase, gone.reason) == (JobPhase.CANCELLED, "The node was revoked.")


async def test_ping_names_the_scheduler(scheduler: Scheduler) -> None:
    line = await scheduler.ping("alice")
    assert line
    assert "\n" not in line


def test_what_nodes_do_not_do_is_refused_and_a_cluster_is_never_called_as_one(world: World, node: Node) -> None:
    system = world.tools.system(system_name(node.id))
    assert system.node_id == node.id
    with pytest.raises(NodeUnsupported):
        _ = system.files.home
    with pytest.raises(NodeUnsupported):
        _ = system.compute.list_jobs
    with pytest.raises(NodeUnsupported):
        world.tools.system_for("alice", system_name(node.id))
    assert node_id_of("alps") is None
    with pytest.raises(SystemNotFound):
        world.tools.system("nodes")
    assert world.tools.known_system("nowhere") is None
    assert world.tools.known_system(system_name(NOBODYS)) is not None
