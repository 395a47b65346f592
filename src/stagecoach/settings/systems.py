"""Settings of the systems that transfers go to and come from: the way in, the scheduler, the file systems, the limits."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from stagecoach.core.job_scripts import TaskLayout
from stagecoach.settings.credentials import CredentialsSettings
from stagecoach.settings.values import AbsolutePath, HostKey, HostName, HttpUrlText, Section

MAX_URL_TTL_SECONDS = 7 * 24 * 3600
MAX_TASKS = 256


class ProxyJumpSettings(Section):
    """A gateway in front of the cluster; the same credentials open it."""

    host: HostName = Field(..., description="Host name of the gateway.")
    port: int = Field(22, ge=1, le=65535, description="SSH port of the gateway.")
    host_keys: tuple[HostKey, ...] = Field(
        ..., min_length=1, description="Public host keys of the gateway, any of which is accepted."
    )


class SshSettings(Section):
    """The way into a cluster."""

    host: HostName = Field(..., description="Host name of the login node.")
    port: int = Field(22, ge=1, le=65535, description="SSH port.")
    host_keys: tuple[HostKey, ...] = Field(
        ..., min_length=1, description="Public host keys, any of which is accepted; nothing else ever is."
    )
    proxy_jump: ProxyJumpSettings | None = Field(None, description="Gateway to go through, if any.")
    credentials: CredentialsSettings = Field(..., description="How this service logs in as a user.")
    max_sessions_per_user: int = Field(
        6, ge=1, le=100, description="Commands and file sessions of one user at once; stay below sshd's MaxSessions."
    )
    max_sessions: int = Field(
        300, ge=1, le=100_000, description="Commands and file sessions on this system at once, over all users."
    )
    max_connections: int = Field(100, ge=1, le=10000, description="SSH connections to this system at once, over all users.")
    queue_timeout_seconds: float = Field(
        30.0,
        gt=0,
        le=600,
        description="Seconds a request waits for a free session, connection or submission; after that it gets 503.",
    )
    connect_timeout_seconds: float = Field(10.0, gt=0, le=300, description="Seconds to connect and log in.")
    command_timeout_seconds: float = Field(20.0, gt=0, le=600, description="Seconds one command or file operation may take.")
    idle_timeout_seconds: float = Field(300.0, gt=0, description="Seconds an unused connection is kept.")
    keepalive_seconds: float = Field(
        5.0, gt=0, le=300, description="Interval of keepalive messages; three lost ones end the connection."
    )


class RestSettings(Section):
    """Slurm's REST API, asked about users' own jobs and the cluster; staging jobs stay with the commands over SSH."""

    url: HttpUrlText = Field(..., description="Where slurmrestd listens, e.g. https://slurm.example.org:6820.")
    api_version: str = Field(
        "v0.0.38", pattern=r"^v0\.0\.[0-9]{2}$", description="Version of its API: v0.0.38 for Slurm 22.05, v0.0.41 for 24.05."
    )
    jwt_key_file: AbsolutePath = Field(
        ..., description="File with Slurm's jwt_key (AuthAltParameters); each question is signed with it, as its user."
    )
    timeout_seconds: float = Field(15.0, gt=0, le=600, description="Seconds that one question may take.")


class SchedulerSettings(Section):
    """Which scheduler carries staging jobs."""

    kind: Literal["slurm", "local"] = Field(
        "slurm", description="slurm (over SSH), or local: a child process of this service, for the embedded mode."
    )
    binaries: AbsolutePath | None = Field(
        None, description="Directory of sbatch, squeue, sacct, scontrol and scancel, when not on the login node's PATH."
    )
    ask_as: str | None = Field(
        None,
        description=(
            "User whose login is used to ask for the state of all jobs at once; unset, each owner's is used "
            "(needed with PrivateData=jobs)."
        ),
    )
    max_submissions_at_once: int = Field(
        8, ge=1, le=1000, description="slurm only: sbatch commands at once in each process; others wait for their turn."
    )
    rest: RestSettings | None = Field(
        None, description="slurm only: its REST API for users' own jobs; unset, its commands over SSH."
    )
    state_directory: AbsolutePath | None = Field(None, description="local only: where job states are kept.")


class FileSystemSettings(Section):
    """A file system that transfers may read from and write to."""

    path: AbsolutePath = Field(..., description="Its root; {user} stands for the user name.")
    data_type: Literal["users", "store", "archive", "apps", "scratch", "project"] = Field(
        "users", description="What it is for; FirecREST's clients are told."
    )
    default_work_directory: bool = Field(
        False, description="Whether FirecREST's clients are told that jobs work there unless said otherwise."
    )


class ProbingSettings(Section):
    """How each API process looks whether the system's services answer. The status page shows it; nothing is refused for it."""

    interval_seconds: int = Field(120, ge=5, le=86_400, description="Seconds between two looks.")
    timeout_seconds: float = Field(10.0, gt=0, le=300, description="Seconds after which a service counts as not answering.")
    ask_as: str | None = Field(
        None,
        description=(
            "User whose login is used to look; scheduler.ask_as when unset, and without either only SSH and the store are "
            "looked at, without a login."
        ),
    )


class ParallelSettings(Section):
    """When several Slurm tasks move one file together. They share it and the job's directory, so all nodes must see both."""

    nodes: int = Field(2, ge=1, le=MAX_TASKS, description="Nodes of a staging job for a large file.")
    tasks_per_node: int = Field(
        1, ge=1, le=64, description="Tasks on each of them; one fills most lines, since each task has many connections."
    )
    above_bytes: int = Field(
        100 * 1024**3, ge=0, description="A larger file is moved by several tasks; others, and directories, by one."
    )

    @model_validator(mode="after")
    def _not_too_many(self) -> ParallelSettings:
        if self.layout.tasks > MAX_TASKS:
            raise ValueError(f"nodes times tasks_per_node must be at most {MAX_TASKS}")
        return self

    @property
    def layout(self) -> TaskLayout:
        """The same as the scheduler is told it."""
        return TaskLayout(self.nodes, self.tasks_per_node)


class SystemLimits(Section):
    """Bounds for one system."""

    max_file_size_bytes: int | None = Field(None, ge=1, description="Largest file accepted; unset, what S3 allows.")
    max_open_transfers_per_user: int = Field(200, ge=1, description="Transfers of one user under way at once.")
    max_open_transfers: int = Field(20_000, ge=1, description="Transfers of all users under way at once.")
    max_new_transfers_per_minute_per_user: int = Field(
        300, ge=1, le=100_000, description="Transfers that one user may begin in a minute; each submits a job."
    )
    max_listed_entries: int = Field(
        50_000, ge=1, le=1_000_000, description="Names read for one listing of a directory; more are refused, never cut off."
    )
    max_operation_seconds: int = Field(
        300,
        ge=1,
        le=3600,
        description=(
            "How long one request may work on files (checksum, compress, extract, rm, a direct upload or download); longer "
            "ones get 408 and are for jobs. Proxies in front must wait as long."
        ),
    )
    max_operations_per_user: int = Field(
        2, ge=1, le=100, description="Checksums, archives and removals of one user at once; others wait, within the same time."
    )
    max_operations: int = Field(16, ge=1, le=1000, description="The same of all users, in each process.")
    wait_in_job_seconds: int = Field(
        6 * 3600,
        ge=10,
        le=MAX_URL_TTL_SECONDS,
        description="With wait: in_job, how long a job waits for its object before it fails.",
    )
    keep_failed_seconds: int = Field(
        24 * 3600,
        ge=0,
        le=30 * 24 * 3600,
        description="How long what is staged of a failed transfer is kept, so that its owner can retry it; 0: not at all.",
    )
    upload_seconds: int = Field(
        7 * 24 * 3600, ge=60, description="How long a client may take to put all parts of an upload; it expires then."
    )


class SystemSettings(Section):
    """A cluster (or this machine) that transfers go to and come from."""

    name: str = Field(
        ..., pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Its name in URLs: lower-case letters, digits, - and _."
    )
    enabled: bool = Field(
        True, description="Whether it takes new transfers; if not they get 503, and those that are open go on to their end."
    )
    disabled_reason: str | None = Field(
        None, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$", description="What users are told while it is not enabled."
    )
    ssh: SshSettings | None = Field(None, description="The way in; unset for a local system.")
    scheduler: SchedulerSettings = Field(
        default_factory=lambda: SchedulerSettings(), description="Which scheduler carries staging jobs."
    )
    directives: tuple[str, ...] = Field(
        (),
        description=(
            "sbatch options for staging jobs, e.g. --partition=xfer or --account={account}; {account} makes "
            "the request's account obligatory."
        ),
    )
    work_directory: str = Field(
        "{home}/.stagecoach",
        description="Where a staging job keeps its files until it ends; {home} and {user} are filled in.",
    )
    file_systems: tuple[FileSystemSettings, ...] = Field(
        ..., min_length=1, description="Where transfers may read and write; anything outside is refused."
    )
    wait: Literal["held", "in_job"] = Field(
        "held",
        description=(
            "held: the job is submitted held and released when the object is whole; in_job: the job itself "
            "waits, for sites that cannot release."
        ),
    )
    python: str = Field("python3", pattern=r"^[A-Za-z0-9_./-]+$", description="Python (3.6 or newer) on the compute nodes.")
    s3_url: HttpUrlText | None = Field(None, description="How this system's nodes reach the store; s3.private_url when unset.")
    mover_concurrency: int | None = Field(
        None, ge=1, le=64, description="Connections of each task of a staging job to the store; unset, the mover chooses."
    )
    parallel: ParallelSettings | None = Field(
        None, description="Slurm only: several tasks, on several nodes, for one large file; unset, one task moves it."
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Variables set in staging jobs, e.g. https_proxy or SSL_CERT_FILE. Not for secrets.",
    )
    limits: SystemLimits = Field(default_factory=lambda: SystemLimits(), description="Bounds for this system.")
    probing: ProbingSettings = Field(
        default_factory=lambda: ProbingSettings(), description="How its services are looked at for the status page."
    )

    @field_validator("directives")
    @classmethod
    def _directives_are_options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for directive in value:
            if not re.fullmatch(r"-[^\s\0]+", directive):
                raise ValueError(f"{directive!r} must be one sbatch option without spaces, like --partition=xfer")
        return value

    @field_validator("environment")
    @classmethod
    def _environment_names(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\n" in text or "\0" in text:
                raise ValueError(f"{name!r} is not a variable that can be set")
        return value

    @model_validator(mode="after")
    def _way_in(self) -> SystemSettings:
        if self.scheduler.kind == "slurm" and self.ssh is None:
            raise ValueError("scheduler kind slurm needs an ssh section")
        if self.scheduler.kind == "local" and self.scheduler.state_directory is None:
            raise ValueError("scheduler kind local needs scheduler.state_directory")
        if self.scheduler.kind == "local" and self.scheduler.rest is not None:
            raise ValueError("scheduler.rest needs scheduler kind slurm")
        if self.scheduler.kind == "local" and self.parallel is not None:
            raise ValueError("parallel needs scheduler kind slurm")
        return self

    @property
    def roots(self) -> tuple[str, ...]:
        """Root patterns of all file systems."""
        return tuple(file_system.path for file_system in self.file_systems)

    @property
    def needs_account(self) -> bool:
        """Whether a directive has ``{account}`` in it."""
        return any("{account}" in directive for directive in self.directives)
