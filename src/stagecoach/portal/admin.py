"""For administrators: systems and their health, people, quotas and limits, everybody's transfers, the audit log, orphans."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal import roads
from stagecoach.portal.api_calls import ApiRefusal, Params
from stagecoach.portal.visits import Handler, Visit, action, page
from stagecoach.portal.words import bytes_of

ADMIN = "/portal/admin"
PAGE_LINES = 100
USERS_SHOWN = 50
AUDIT_DAYS = 1
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
# What the settings on the page are about, by how their names begin.
SETTING_GROUPS = (
    ("Quotas and sizes", re.compile(r"s3\.max_.*")),
    ("How long things are kept", re.compile(r"s3\.bucket_lifecycle_configuration\..*")),
    ("Systems", re.compile(r"systems\..*")),
)


def _for_administrators(handler: Handler) -> Handler:
    """Others are told as the API would tell them."""

    async def checked(visit: Visit) -> Response:
        if not visit.me["isAdmin"]:
            raise HTTPException(404)
        return await handler(visit)

    return checked


@_for_administrators
async def show_systems(visit: Visit) -> Response:
    """Each with what its services said, how much is under way, and the switch that closes it."""
    systems = (await visit.api("GET", "/admin/systems"))["systems"]
    health = {one["name"]: one["servicesHealth"] for one in (await visit.api("GET", "/status/systems"))["systems"]}
    return visit.render("admin_systems.html", systems=systems, health=health)


@_for_administrators
async def switch_system(visit: Visit) -> Response:
    """Close a system for new transfers, or open it."""
    name = visit.part("system")
    opens = visit.form.get("enabled") == "yes"
    reason = visit.form.get("reason", "").strip() or None
    values = {f"systems.{name}.enabled": opens, f"systems.{name}.disabled_reason": None if opens else reason}
    await visit.api("PATCH", "/admin/settings", json={"set": values})
    visit.say(f"{name} is open." if opens else f"{name} takes no new transfers; those under way go on.")
    return visit.go(ADMIN)


@_for_administrators
async def show_people(visit: Visit) -> Response:
    """Local accounts by name."""
    found = await visit.api("GET", "/accounts", params={"after": visit.query.get("after") or None, "limit": PAGE_LINES})
    return visit.render(
        "admin_people.html",
        accounts=found["accounts"],
        next_page=found["next"],
        has_accounts=visit.portal.settings.accounts.enabled,
    )


@_for_administrators
async def make_person(visit: Visit) -> Response:
    """A local account, with its user on the clusters."""
    who = {"name": visit.form.get("name", "").strip(), "password": visit.form.get("password", "")}
    user = visit.form.get("user", "").strip() or None
    await visit.api("POST", "/accounts", json={**who, "user": user})
    visit.say(f"The account {who['name']} is made.")
    return visit.go(f"{ADMIN}/people")


@_for_administrators
async def change_person(visit: Visit) -> Response:
    """Its user on the clusters, and whether it may do anything."""
    name = visit.part("name")
    change = {"user": visit.form.get("user", "").strip() or None, "disabled": visit.form.get("disabled") == "yes"}
    await visit.api("PUT", f"/accounts/{name}", json=change)
    visit.say(f"The account {name} is changed.")
    return visit.go(f"{ADMIN}/people")


@_for_administrators
async def show_limits(visit: Visit) -> Response:
    """Who uses how much, and what may be changed while the service runs, in groups."""
    usage = await visit.api("GET", "/admin/usage", params={"limit": USERS_SHOWN})
    settings = (await visit.api("GET", "/admin/settings"))["settings"]
    groups = [(title, [one for one in settings if names.fullmatch(one["name"])]) for title, names in SETTING_GROUPS]
    return visit.render("admin_limits.html", groups=groups, kind_of=kind_of, usage=usage)


@_for_administrators
async def change_limit(visit: Visit) -> Response:
    """One setting: another value, or what the file says."""
    name = visit.form.get("name", "")
    if visit.form.get("unset") == "yes":
        await visit.api("PATCH", "/admin/settings", json={"unset": [name]})
        visit.say(f"{name} is as the settings file says.")
    else:
        settings = {one["name"]: one for one in (await visit.api("GET", "/admin/settings"))["settings"]}
        kind = kind_of(settings[name]) if name in settings else "text"
        await visit.api("PATCH", "/admin/settings", json={"set": {name: _value(kind, visit.form.get("value", ""))}})
        visit.say(f"{name} is changed. It holds in every process within seconds.")
    return visit.go(f"{ADMIN}/limits")


@_for_administrators
async def show_everybodys_transfers(visit: Visit) -> Response:
    """Newest first, of one person or of all."""
    question: Params = {
        "owner": visit.query.get("owner", "").strip() or None,
        "limit": PAGE_LINES,
        "after": visit.query.get("after") or None,
    }
    found = await visit.api("GET", "/transfers", params=question)
    return visit.render(
        "admin_transfers.html",
        transfers=found["transfers"],
        next_page=found["next"],
        owner=visit.query.get("owner", ""),
        roads=roads,
    )


@_for_administrators
async def show_audit_log(visit: Visit) -> Response:
    """Who did what, from a day on."""
    now: datetime = visit.portal.now()
    since = visit.query.get("since", "")
    since = since if _DAY.fullmatch(since) else (now - timedelta(days=AUDIT_DAYS)).date().isoformat()
    after = visit.query.get("after", "")
    question: Params = {
        "since": f"{since}T00:00:00Z",
        "who": visit.query.get("who", "").strip() or None,
        "after": int(after) if after.isascii() and after.isdigit() and len(after) < 19 else 0,
        "limit": PAGE_LINES + 1,
    }
    text = await visit.api("GET", "/admin/audit", params=question)
    lines = [json.loads(line) for line in (text or "").splitlines()]
    for line in lines:
        line["told"] = told_of(line["detail"])
    return visit.render(
        "admin_audit.html",
        lines=lines[:PAGE_LINES],
        next_page=lines[PAGE_LINES - 1]["number"] if len(lines) > PAGE_LINES else None,
        since=since,
        who=visit.query.get("who", ""),
    )


def told_of(detail: Mapping[str, Any]) -> list[str]:
    """What an act's line knows beside: names and values, and of a setting what it was before."""
    before, told = detail.get("before") or {}, []
    for name, value in detail.items():
        if name == "set" and isinstance(value, dict):
            told += [f"{setting}: {_as_text(before.get(setting))} → {_as_text(one)}" for setting, one in value.items()]
        elif name == "unset" and isinstance(value, list):
            told += [f"{setting}: {_as_text(before.get(setting))} → as in the file" for setting in value]
        elif name != "before" and value is not None:
            told.append(f"{name}: {_as_text(value)}")
    return told


def _as_text(value: object) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@_for_administrators
async def show_orphans(visit: Visit) -> Response:
    """What nothing needs any more; looked for only when asked, since that takes its time."""
    report = await visit.api("GET", "/admin/orphans") if "look" in visit.query else None
    return visit.render("admin_orphans.html", report=report)


def kind_of(setting: Mapping[str, Any]) -> str:
    """Of its field: yes-or-no, bytes, number or text."""
    name = setting["name"]
    if isinstance(setting["fileValue"], bool) or isinstance(setting["value"], bool):
        return "switch"
    if name.endswith("disabled_reason"):
        return "text"
    is_size = name.startswith("s3.max_")
    return "bytes" if is_size else "number"


def _value(kind: str, text: str) -> object:
    """As the API takes it; empty is null. Raises ApiRefusal for what is no number."""
    text = text.strip()
    if kind == "switch":
        return text == "yes"
    if not text:
        return None
    if kind == "text":
        return text
    if kind == "number" and text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    size_bytes = bytes_of(text) if kind == "bytes" else None
    if size_bytes is None:
        raise ApiRefusal(400, "setting_refused", "This is no number; sizes may have a unit, such as 500 GB or 1 GiB.")
    return size_bytes


routes = [
    Route(ADMIN, page(show_systems)),
    Route(f"{ADMIN}/systems/{{system}}", action(ADMIN)(switch_system), methods=["POST"]),
    Route(f"{ADMIN}/people", page(show_people), methods=["GET"]),
    Route(f"{ADMIN}/people", action(f"{ADMIN}/people")(make_person), methods=["POST"]),
    Route(f"{ADMIN}/people/{{name}}", action(f"{ADMIN}/people")(change_person), methods=["POST"]),
    Route(f"{ADMIN}/limits", page(show_limits), methods=["GET"]),
    Route(f"{ADMIN}/limits", action(f"{ADMIN}/limits")(change_limit), methods=["POST"]),
    Route(f"{ADMIN}/transfers", page(show_everybodys_transfers)),
    Route(f"{ADMIN}/audit", page(show_audit_log)),
    Route(f"{ADMIN}/orphans", page(show_orphans)),
]
