"""Shapes of what administrators look at and change."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictInt, StrictStr

from stagecoach.wire.shapes import Shape

MAX_CHANGES = 100
SettingName = Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,128}$", description="As in the file, with dots between.")]
SettingValue = StrictBool | Annotated[StrictInt, Field(ge=0, le=2**62)] | Annotated[StrictStr, Field(max_length=1000)] | None


class SettingView(Shape):
    """One setting that may be changed while the service runs."""

    name: str
    description: str
    value: Any = Field(description="What holds now.")
    file_value: Any = Field(description="What the settings file says, or its default.")
    is_changed: bool
    changed_at: datetime | None = None
    changed_by: str | None = None


class SettingsView(Shape):
    """All of them."""

    settings: list[SettingView]


class SettingsChange(Shape):
    """All of it holds, or nothing does."""

    set: dict[SettingName, SettingValue] = Field(
        default_factory=dict, max_length=MAX_CHANGES, description="New values by name; null where the file may leave it unset."
    )
    unset: list[SettingName] = Field(
        default_factory=list, max_length=MAX_CHANGES, description="Names of settings that the file shall decide again."
    )


class AdminSystem(Shape):
    """A system as administrators see it."""

    name: str
    enabled: bool
    disabled_reason: str | None
    scheduler: str = Field(description="slurm or local")
    open_transfers: int = Field(description="Of all users, not ended.")
    staged_bytes: int = Field(description="Of its transfers, in the staging area.")


class AdminSystems(Shape):
    """All of them."""

    systems: list[AdminSystem]


class OpenTransfers(Shape):
    """Of one user on one system or node."""

    system: str
    count: int = Field(description="Under way: not ended, and not just waiting to be fetched.")
    most: int | None = Field(description="`limits.max_open_transfers_per_user` of the system; null of one that is gone.")


class UserUsage(Shape):
    """What counts against one user's bounds."""

    user: str
    staged_bytes: int = Field(description="Of all transfers that are not cleaned, as the quota counts them.")
    open_transfers: list[OpenTransfers]


class UsageView(Shape):
    """Of those who have anything under way, who has most in the staging area first."""

    max_staged_bytes_per_user: int | None = Field(description="The quota; null: none.")
    users: list[UserUsage]


class Orphan(Shape):
    """One thing that nothing needs any more."""

    kind: str = Field(description="object, multipart, job, job_directory, temporary_file, or what is wrong with a row.")
    place: str = Field(description="The bucket or the system.")
    name: str
    transfer_id: str | None
    user: str | None
    age_seconds: float | None
    why: str
    fixable: bool = Field(description="Whether `stagecoach audit --fix` removes it.")


class AuditNote(Shape):
    """What could not be looked at, or is not ours."""

    place: str
    why: str


class Orphans(Shape):
    """What one look found."""

    findings: list[Orphan]
    unseen: list[AuditNote]
    foreign: list[AuditNote]
