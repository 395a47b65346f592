"""Settings of the systems that transfers go to and come from: the way in, the scheduler, the file systems, the limits."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from stagecoach.settings.values import AbsolutePath, HostKey, HostName, HttpUrlText, Section

MAX_URL_TTL_SECONDS = 7 * 24 * 3600


class CredentialsSettings(Section):
    """How this service logs in as a user."""

    key_file: AbsolutePath = Field(..., description="Private key of each user; {user} stands for the user name.")
    certificate_file: AbsolutePath | None = Field(
        None, description="OpenSSH certificate beside the key, where the site issues them; {user} as above."
    )


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
    max_connections: int = Field(100, ge=1, le=10000, description="SSH connections to this system at once, over all users.")
    connect_timeout_seconds: float = Field(10.0, gt=0, le=300, description="Seconds to connect and log in.")
    command_timeout_seconds: float = Field(20.0, gt=0, le=600, description="Seconds one command or file operation may take.")
    idle_timeout_seconds: float = Field(300.0, gt=0, description="Seconds an unused connection is kept.")
    keepalive_seconds: float = Field(
        5.0, gt=0, le=300, description="Interval of keepalive messages; three lost ones end the connection."
    )


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
    state_directory: AbsolutePath | None = Field(None, description="local only: where job states are kept.")


class FileSystemSettings(Section):
    """A file system that transfers may read from and write to."""

    path: AbsolutePath = Field(..., description="Its root; {user} stands for the user name.")


class SystemLimits(Section):
    """Bounds for one system."""

    max_file_size_bytes: int | None = Field(None, ge=1, description="Largest file accepted; unset, what S3 allows.")
    max_open_transfers_per_user: int = Field(200, ge=1, description="Transfers of one user under way at once.")
    wait_in_job_seconds: int = Field(
        6 * 3600,
        ge=10,
        le=MAX_URL_TTL_SECONDS,
        description="With wait: in_job, how long a job waits for its object before it fails.",
    )
    upload_seconds: int = Field(
        7 * 24 * 3600, ge=60, description="How long a client may take to put all parts of an upload; it expires then."
    )


class SystemSettings(Section):
    """A cluster (or this machine) that transfers go to and come from."""

    name: str = Field(
        ..., pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Its name in URLs: lower-case letters, digits, - and _."
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
        None, ge=1, le=64, description="Connections of one staging job to the store; unset, the mover chooses."
    )
    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Variables set in staging jobs, e.g. https_proxy or SSL_CERT_FILE. Not for secrets.",
    )
    limits: SystemLimits = Field(default_factory=lambda: SystemLimits(), description="Bounds for this system.")

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
        return self

    @property
    def roots(self) -> tuple[str, ...]:
        """Root patterns of all file systems."""
        return tuple(file_system.path for file_system in self.file_systems)

    @property
    def needs_account(self) -> bool:
        """Whether a directive has ``{account}`` in it."""
        return any("{account}" in directive for directive in self.directives)
