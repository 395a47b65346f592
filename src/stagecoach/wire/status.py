"""FirecREST v2's shapes for the status of systems. Keys below ``dataOperation`` are snake_case, as its clients expect."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stagecoach.wire.shapes import Shape

HIDDEN = "**********"


class SshTimeouts(Shape):
    """Seconds."""

    connection: int
    login: int
    command_execution: int
    idle_timeout: int
    keep_alive: int


class Ssh(Shape):
    """The way in. A system that is this machine itself has none: port 0."""

    host: str
    port: int
    proxy_host: str | None = None
    proxy_port: int | None = None
    max_clients: int
    timeout: SshTimeouts


class Scheduler(Shape):
    """What runs jobs. ``type`` is slurm also where this machine runs them as processes: FirecREST knows no such thing."""

    type: Literal["slurm"] = "slurm"
    connection_mode: Literal["ssh", "rest", "hybrid"] | None = "ssh"
    version: str
    api_url: str | None = None
    api_version: str | None = None
    timeout: int


class ServiceHealth(Shape):
    """What is believed of a service; one failed look changes nothing yet."""

    service_type: Literal["scheduler", "ssh", "filesystem", "s3", "exception"]
    last_checked: datetime | None
    latency: float | None = Field(description="Seconds that the last look took.")
    healthy: bool
    message: str | None
    path: str | None = None


class ProbedService(Shape):
    """How long a look may take, in seconds."""

    timeout: int


class Probing(Shape):
    """How services are looked at."""

    services: dict[str, ProbedService]
    interval_check: int


class FileSystem(Shape):
    """A file system; ``path`` without the user's own directory below it."""

    path: str
    data_type: str
    default_work_dir: bool


class _SnakeShape(BaseModel):
    model_config = ConfigDict(frozen=True)


class Multipart(_SnakeShape):
    """How parts are made."""

    use_split: bool = False
    max_part_size: int
    parallel_runs: int
    tmp_folder: str = ""


class BucketLifecycle(_SnakeShape):
    """Days until staged objects go."""

    days: int


class DataTransfer(Shape):
    """The staging area."""

    service_type: Literal["s3"] = "s3"
    name: str
    private_url: str = HIDDEN
    public_url: str
    access_key_id: str = HIDDEN
    secret_access_key: str = HIDDEN
    region: str
    ttl: int
    tenant: str | None
    multipart: Multipart
    bucket_lifecycle_configuration: BucketLifecycle


class DataOperation(_SnakeShape):
    """How data goes in and out."""

    datatransfer_jobs_directives: list[str]
    max_ops_file_size: int
    data_transfer: DataTransfer


class System(Shape):
    """A system."""

    name: str
    ssh: Ssh
    scheduler: Scheduler
    services_health: list[ServiceHealth]
    probing: Probing
    last_health_check: datetime | None
    file_systems: list[FileSystem]
    data_operation: DataOperation


class SystemsAnswer(Shape):
    """All systems."""

    systems: list[System]


class Node(Shape):
    """A compute node. Memory in MiB."""

    name: str
    cpus: int
    state: list[str]
    sockets: int | None = None
    cores: int | None = None
    threads: int | None = None
    cpu_load: float | None = None
    free_memory: int | None = None
    features: list[str] | None = None
    address: str | None = None
    hostname: str | None = None
    partitions: list[str] | None = None
    weight: int | None = None
    alloc_memory: int | None = None
    alloc_cpus: int | None = None
    idle_cpus: int | None = None


class NodesAnswer(Shape):
    """Nodes."""

    nodes: list[Node]


class Partition(Shape):
    """A partition; ``partition`` holds its state, as in FirecREST."""

    name: str
    cpus: int | None
    total_nodes: int | None
    partition: str


class PartitionsAnswer(Shape):
    """Partitions."""

    partitions: list[Partition]


class Reservation(Shape):
    """A reservation; times are epoch seconds."""

    name: str
    node_list: str
    start_time: int
    end_time: int
    features: str | None = None
    state: str | None = None


class ReservationsAnswer(Shape):
    """Reservations."""

    reservations: list[Reservation]


class Identified(Shape):
    """A user or group; ``id`` is the number, as text."""

    id: str
    name: str


class Group(Identified):
    """A group of the user's."""

    default: bool


class Account(Shape):
    """An account that jobs may be charged to."""

    name: str
    default: bool


class UserInfoAnswer(Shape):
    """Who the caller is on the system: the keys of FirecREST 2.5 and 2.6 together."""

    user: Identified
    group: Identified
    groups: list[Group]
    accounts: list[Account] | None


class Liveness(Shape):
    """When each system was looked at last, and when any was, in epoch seconds."""

    healthcheck_runs: dict[str, datetime]
    last_update: int
