"""``/admin``: what administrators look at and change while the service runs. Nobody else gets here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator

from stagecoach.api.access import Administrator, Tools
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.api.transfers import NO_NUL
from stagecoach.core.audit import Finding
from stagecoach.core.audit_log import Act, AuditFilter
from stagecoach.core.nodes import node_id_of
from stagecoach.flows.audit import audit
from stagecoach.flows.audit_looks import Scope
from stagecoach.flows.change_settings import change_settings
from stagecoach.flows.record_act import as_json, audit_lines
from stagecoach.flows.show_settings import Setting, show_settings, show_systems, show_usage
from stagecoach.flows.toolbox import Toolbox
from stagecoach.wire import admin as wire

router = APIRouter(prefix="/admin", tags=["admin"], responses=PROBLEM_ANSWERS)

TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"


def _is_a_time(text: str) -> str:
    try:
        datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:
        raise ValueError("no calendar has this day") from None
    return text


MomentText = Annotated[
    str,
    Query(max_length=40, pattern=TIME, description="A time with its zone, like 2030-01-31T23:59:59Z."),
    AfterValidator(_is_a_time),
]


@router.get(
    "/audit",
    summary="Export the audit log",
    response_class=Response,
    responses={
        200: {
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
            "description": "One JSON object a line, oldest first.",
        }
    },
)
async def get_audit(
    administrator: Administrator,
    tools: Tools,
    since: MomentText | None = None,
    until: MomentText | None = None,
    who: Annotated[str | None, Query(max_length=255, pattern=NO_NUL, description="Only what this user did.")] = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="`number` of the last line that came: those behind it.")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Response:
    """Lines of `number`, `at`, `who`, `what`, `target`, `result` (`done`, or the code of the error), `address`,
    `request_id` and `detail`. Fewer than `limit`: there are no more."""
    wanted = AuditFilter(
        since=datetime.fromisoformat(since) if since else None,
        until=datetime.fromisoformat(until) if until else None,
        who=who,
        after=after,
        limit=limit,
    )
    lines = [as_json(line) + "\n" async for line in audit_lines(tools, wanted)]
    return Response("".join(lines), media_type="application/x-ndjson")


@router.get("/settings", summary="Show the settings that may be changed while the service runs")
async def get_settings(administrator: Administrator, tools: Tools) -> wire.SettingsView:
    """Each with its value, and the value of the file."""
    return await _settings(tools)


@router.patch("/settings", summary="Change settings while the service runs")
async def patch_settings(
    change: wire.SettingsChange, administrator: Administrator, tools: Tools, trail: CurrentTrail
) -> wire.SettingsView:
    """Holds in every process of the service within seconds, and until it is unset, whatever is started again."""
    async with trail.of(Act.SETTINGS_CHANGED, set=dict(change.set), unset=list(change.unset)) as noted:
        noted.detail["before"] = await change_settings(tools, administrator, change.set, change.unset)
    return await _settings(tools)


@router.get("/systems", summary="Show the systems and what is under way on them")
async def get_systems(administrator: Administrator, tools: Tools) -> wire.AdminSystems:
    """Change `systems.{name}.enabled` and `systems.{name}.disabled_reason` to close one for new transfers."""
    return wire.AdminSystems(
        systems=[
            wire.AdminSystem(
                name=report.system.settings.name,
                enabled=report.system.settings.enabled,
                disabled_reason=report.system.settings.disabled_reason,
                scheduler=report.system.settings.scheduler.kind,
                open_transfers=report.open_transfers,
                staged_bytes=report.staged_bytes,
            )
            for report in await show_systems(tools)
        ]
    )


@router.get("/usage", summary="Show who uses how much")
async def get_usage(
    administrator: Administrator, tools: Tools, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> wire.UsageView:
    """Each user's transfers under way and bytes in the staging area, beside what bounds them."""
    users = await show_usage(tools, limit)
    return wire.UsageView(
        max_staged_bytes_per_user=tools.settings.s3.max_staged_bytes_per_user,
        users=[
            wire.UserUsage(
                user=one.user,
                staged_bytes=one.staged_bytes,
                open_transfers=[
                    wire.OpenTransfers(system=system, count=count, most=_most_open(tools, system))
                    for system, count in one.open_transfers.items()
                ],
            )
            for one in users
        ],
    )


def _most_open(tools: Toolbox, system: str) -> int | None:
    if node_id_of(system) is not None:
        return tools.settings.nodes.limits.max_open_transfers_per_user
    settings = tools.settings_in_force.system(system)
    return settings.limits.max_open_transfers_per_user if settings is not None else None


@router.get("/orphans", summary="Look for what nothing needs any more")
async def get_orphans(
    administrator: Administrator,
    tools: Tools,
    days: Annotated[float, Query(ge=0, le=365, description="Look beside the targets of uploads that ended in so many.")] = 30.0,
) -> wire.Orphans:
    """What `stagecoach audit` prints: store, schedulers and directories are compared with the database, and nothing is
    changed. It takes its time; `stagecoach audit --fix` removes what is found."""
    report = await audit(tools, Scope(days))
    return wire.Orphans(
        findings=[_orphan(finding) for finding in report.findings],
        unseen=[wire.AuditNote(place=_text(place), why=_text(why)) for place, why in report.unseen],
        foreign=[wire.AuditNote(place=_text(place), why=_text(why)) for place, why in report.foreign],
    )


def _orphan(finding: Finding) -> wire.Orphan:
    return wire.Orphan(
        kind=finding.kind.value,
        place=_text(finding.place),
        name=_text(finding.name),
        transfer_id=finding.transfer_id,
        user=finding.user,
        age_seconds=finding.age_seconds,
        why=_text(finding.why),
        fixable=finding.fixable,
    )


def _text(name: str) -> str:
    """Names of a user's files may hold any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


async def _settings(tools: Toolbox) -> wire.SettingsView:
    return wire.SettingsView(settings=[_view(setting) for setting in await show_settings(tools)])


def _view(setting: Setting) -> wire.SettingView:
    override = setting.override
    return wire.SettingView(
        name=setting.name,
        description=setting.description,
        value=setting.value,
        file_value=setting.file_value,
        is_changed=override is not None,
        changed_at=override.changed_at if override else None,
        changed_by=override.changed_by if override else None,
    )
