"""``/status``: which systems there are, whether they answer, what they have, and who the caller is on them."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response

from stagecoach.api.access import JobsReader, SystemsReader, Tools, open_to_all
from stagecoach.api.firecrest.transfer import SystemName
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.health import Health
from stagecoach.flows.show_cluster import show_nodes, show_partitions, show_person, show_reservations
from stagecoach.flows.toolbox import Probed, Toolbox
from stagecoach.ports.compute import Node
from stagecoach.settings import Settings, SystemSettings
from stagecoach.settings.systems import FileSystemSettings
from stagecoach.wire import status as wire

router = APIRouter(prefix="/status", tags=["status"], responses=PROBLEM_ANSWERS)
PARALLEL_PARTS = 3
UNKNOWN_VERSION = "unknown"
# A local system has no SSH; clients expect numbers.
NO_SSH = wire.Ssh(
    host="localhost",
    port=0,
    max_clients=0,
    timeout=wire.SshTimeouts(connection=0, login=0, command_execution=0, idle_timeout=0, keep_alive=0),
)


@router.get("/systems", summary="List the systems")
async def get_system_status(caller: SystemsReader, tools: Tools) -> wire.SystemsAnswer:
    """With what the last looks at their services saw; nothing is asked of them now."""
    return wire.SystemsAnswer(systems=[_system(tools, name, caller.username) for name in tools.systems])


@router.get("/liveness/", summary="When the systems were looked at", dependencies=[open_to_all()])
async def get_liveness(tools: Tools) -> wire.Liveness:
    """Whether the looks go on."""
    runs = {name: max(health.probe.at for health in known.values()) for name, known in tools.health.items() if known}
    return wire.Liveness(healthcheck_runs=runs, last_update=int(max(runs.values()).timestamp()) if runs else 0)


@router.get("/{system}/nodes", summary="List the nodes", response_model=wire.NodesAnswer)
async def get_nodes(system: SystemName, caller: JobsReader, tools: Tools) -> Response:
    """As the scheduler shows them to you."""
    nodes = await show_nodes(tools, caller, system)
    # Ten thousand of them take their time to write down; others are served meanwhile.
    return Response(await asyncio.to_thread(_written, nodes), media_type="application/json")


@router.get("/{system}/partitions", summary="List the partitions")
async def get_partitions(
    system: SystemName,
    caller: JobsReader,
    tools: Tools,
    show_hidden: Annotated[bool, Query(description="Hidden ones as well.")] = False,
) -> wire.PartitionsAnswer:
    """As the scheduler shows them to you."""
    found = await show_partitions(tools, caller, system, with_hidden=show_hidden)
    return wire.PartitionsAnswer(
        partitions=[
            wire.Partition(name=one.name, cpus=one.cpus, total_nodes=one.node_count, partition=one.state) for one in found
        ]
    )


@router.get("/{system}/reservations", summary="List the reservations")
async def get_reservations(system: SystemName, caller: JobsReader, tools: Tools) -> wire.ReservationsAnswer:
    """Present and future ones."""
    return wire.ReservationsAnswer(
        reservations=[
            wire.Reservation(
                name=one.name,
                node_list=one.nodes,
                start_time=one.start_time,
                end_time=one.end_time,
                features=one.features,
                state=one.state,
            )
            for one in await show_reservations(tools, caller, system)
        ]
    )


@router.get("/{system}/userinfo", summary="Who you are on a system")
async def get_userinfo(system: SystemName, caller: SystemsReader, tools: Tools) -> wire.UserInfoAnswer:
    """User, groups, and the accounts that your jobs may be charged to."""
    person = await show_person(tools, caller, system)
    groups = [
        wire.Group(id=str(group.id), name=group.name, default=position == 0) for position, group in enumerate(person.groups)
    ]
    accounts = person.accounts
    return wire.UserInfoAnswer(
        user=wire.Identified(id=str(person.id), name=person.name),
        group=wire.Identified(id=groups[0].id, name=groups[0].name),
        groups=groups,
        accounts=None if accounts is None else [wire.Account(name=one.name, default=one.is_default) for one in accounts],
    )


def _written(nodes: Sequence[Node]) -> str:
    return wire.NodesAnswer(nodes=[_node(node) for node in nodes]).model_dump_json(by_alias=True)


def _system(tools: Toolbox, name: str, username: str) -> wire.System:
    settings = tools.system(name).settings
    known: Mapping[Probed, Health] = tools.health.get(name, {})
    probing = settings.probing
    timeout = wire.ProbedService(timeout=math.ceil(probing.timeout_seconds))
    services = sorted({probed.service for probed in known})
    return wire.System(
        name=name,
        ssh=_ssh(settings),
        scheduler=_scheduler(settings, known.get(Probed("scheduler"))),
        services_health=[_health(probed, health) for probed, health in sorted(known.items(), key=lambda pair: str(pair[0]))],
        probing=wire.Probing(
            services=dict.fromkeys(services, timeout),
            interval_check=probing.interval_seconds,
        ),
        last_health_check=max((health.probe.at for health in known.values()), default=None),
        file_systems=[_file_system(one, username) for one in settings.file_systems],
        data_operation=_data_operation(tools.settings, settings),
    )


def _ssh(settings: SystemSettings) -> wire.Ssh:
    ssh = settings.ssh
    if ssh is None:
        return NO_SSH
    connect = math.ceil(ssh.connect_timeout_seconds)
    return wire.Ssh(
        host=ssh.host,
        port=ssh.port,
        proxy_host=ssh.proxy_jump.host if ssh.proxy_jump else None,
        proxy_port=ssh.proxy_jump.port if ssh.proxy_jump else None,
        max_clients=ssh.max_connections,
        timeout=wire.SshTimeouts(
            connection=connect,
            login=connect,
            command_execution=math.ceil(ssh.command_timeout_seconds),
            idle_timeout=math.ceil(ssh.idle_timeout_seconds),
            keep_alive=math.ceil(ssh.keepalive_seconds),
        ),
    )


def _scheduler(settings: SystemSettings, health: Health | None) -> wire.Scheduler:
    said = re.search(r"\d+\.\d+(\.\d+)*", health.probe.message) if health is not None and health.probe.ok else None
    is_local, rest = settings.scheduler.kind == "local", settings.scheduler.rest
    return wire.Scheduler(
        connection_mode=None if is_local else "ssh" if rest is None else "hybrid",
        api_url=rest.url if rest is not None else None,
        api_version=rest.api_version.removeprefix("v") if rest is not None else None,
        version="local processes" if is_local else said[0] if said is not None else UNKNOWN_VERSION,
        timeout=math.ceil(settings.ssh.command_timeout_seconds if settings.ssh is not None else 0),
    )


def _health(probed: Probed, health: Health) -> wire.ServiceHealth:
    return wire.ServiceHealth.model_validate(
        {
            "service_type": probed.service,
            "last_checked": health.probe.at,
            "latency": round(health.probe.seconds, 4),
            "healthy": health.is_healthy,
            "message": health.probe.message,
            "path": probed.path,
        }
    )


def _file_system(settings: FileSystemSettings, username: str) -> wire.FileSystem:
    # Clients put the user's name below the path themselves.
    path = settings.path.removesuffix("/{user}").replace("{user}", username) or "/"
    return wire.FileSystem(path=path, data_type=settings.data_type, default_work_dir=settings.default_work_directory)


def _data_operation(service: Settings, settings: SystemSettings) -> wire.DataOperation:
    s3 = service.s3
    return wire.DataOperation(
        datatransfer_jobs_directives=list(settings.directives),
        max_ops_file_size=service.server.max_direct_file_bytes,
        data_transfer=wire.DataTransfer(
            name="stagecoach",
            public_url=s3.client_url,
            region=s3.region,
            ttl=s3.ttl_seconds,
            tenant=s3.tenant,
            multipart=wire.Multipart(max_part_size=s3.max_part_size_bytes, parallel_runs=PARALLEL_PARTS),
            bucket_lifecycle_configuration=wire.BucketLifecycle(days=s3.bucket_lifecycle_configuration.days),
        ),
    )


def _node(node: Node) -> wire.Node:
    free_cpus = None if node.allocated_cpus is None else max(0, node.cpus - node.allocated_cpus)
    return wire.Node(
        name=node.name,
        cpus=node.cpus,
        state=list(node.states),
        sockets=node.sockets,
        cores=node.cores,
        threads=node.threads,
        cpu_load=node.cpu_load,
        free_memory=node.free_memory_mib,
        features=list(node.features),
        address=node.address,
        hostname=node.hostname,
        partitions=list(node.partitions),
        weight=node.weight,
        alloc_memory=node.allocated_memory_mib,
        alloc_cpus=node.allocated_cpus,
        idle_cpus=free_cpus,
    )
