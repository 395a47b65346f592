"""Settings of data transfer nodes: machines of users' own, with our agent on them."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator

from stagecoach.settings.systems import FileSystemSettings, SchedulerSettings, SystemLimits, SystemSettings
from stagecoach.settings.values import Secret, Section

MIN_KEY_LENGTH = 32


class NodeSettings(Section):
    """Data transfer nodes that users register; their agents ask this service for work."""

    enabled: bool = Field(True, description="Whether users may register nodes and enrol agents; those that are enrolled go on.")
    enrolment_seconds: int = Field(
        24 * 3600, ge=60, le=30 * 24 * 3600, description="How long a new enrolment token may be used, once."
    )
    lease_seconds: int = Field(
        180,
        ge=60,
        le=3600,
        description="How long a command stays with an agent that is not heard of; it waits in the node's queue again after that.",
    )
    offline_after_seconds: int = Field(
        90, ge=60, le=3600, description="How long after its last word a node counts as offline; an agent asks every 50 seconds."
    )
    max_nodes_per_user: int = Field(50, ge=1, le=10_000, description="Nodes of one user.")
    max_grants_per_node: int = Field(500, ge=1, le=10_000, description="Grants and open invitations of one node.")
    max_waiting_agents: int = Field(
        2000, ge=1, le=100_000, description="Agents whose question each API process keeps open until there is news."
    )
    sealing_key: Secret | None = Field(
        None,
        description=(
            "What the keys of nodes' receivers and of stores are sealed with until a node's agent has them: 32 random "
            "characters or more, the same in every replica; a value or secret_file:/path. "
            "Unset, nodes send to nodes through the staging area."
        ),
    )
    limits: SystemLimits = Field(
        default_factory=lambda: SystemLimits(),
        description="Bounds of each node, as those of a system.",
    )

    @field_validator("sealing_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_KEY_LENGTH:
            raise ValueError(f"must have at least {MIN_KEY_LENGTH} characters; `openssl rand -hex 32` makes such a key")
        return value

    def as_system(self, name: str) -> SystemSettings:
        """A node as the flows see it. It is not one that a file could name, so nothing checks it."""
        return SystemSettings.model_construct(
            name=name,
            # Its queue is a table of ours: asking costs as little as on this machine.
            scheduler=SchedulerSettings(kind="local"),
            work_directory="",
            file_systems=(FileSystemSettings(path="/"),),
            limits=self.limits,
        )
