"""Changing files: make a folder, rename, delete, and fetch by a transfer."""

from __future__ import annotations

import base64
import posixpath
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal.api_calls import ApiRefusal
from stagecoach.portal.files import OF_SYSTEM, address_of, system_of
from stagecoach.portal.listing import parent_of
from stagecoach.portal.rendering import shown
from stagecoach.portal.visits import Visit, action, page

FILES = "/portal/files"


@action(FILES)
async def make_folder(visit: Visit) -> Response:
    """In the directory of the form."""
    system, directory = system_of(visit).name, visit.query.get("path", "")
    path = posixpath.join(directory, _name(visit, "The folder"))
    await visit.api("POST", f"/filesystem/{system}/ops/mkdir", json=_said(path))
    visit.say(f"The folder “{shown(posixpath.basename(path))}” is made.")
    return visit.go(address_of(system, directory))


@action(FILES)
async def rename(visit: Visit) -> Response:
    """By a job on the system, as the API does it; never onto something that stands there."""
    system, path = system_of(visit).name, visit.query.get("path", "")
    target = posixpath.join(parent_of(path), _name(visit, "The new name"))
    if await _exists(visit, system, target):
        raise ApiRefusal(409, "file_exists", f"“{shown(posixpath.basename(target))}” is there already; choose another name.")
    begun = await visit.api(
        "POST",
        f"/filesystem/{system}/transfer/mv",
        json={**_plain(path), "targetPath": target, "account": visit.form.get("account")},
        key=visit.form.get("key"),
    )
    visit.say("The new name is on its way: a job on the system gives it.")
    return visit.go(f"/portal/transfers/{begun['transferId']}")


@page
async def ask_to_delete(visit: Visit) -> Response:
    """The question."""
    path = visit.query.get("path", "")
    return visit.render(
        "delete.html",
        system=system_of(visit),
        entry_path=path,
        name=posixpath.basename(path),
        is_directory=visit.query.get("kind") == "folder",
        address_of=address_of,
        parent=parent_of(path),
    )


@action(FILES)
async def delete(visit: Visit) -> Response:
    """At once; what takes longer than a request may is left to a job."""
    system, path = system_of(visit).name, visit.query.get("path", "")
    try:
        await visit.api("DELETE", f"/filesystem/{system}/ops/rm", params={"path": path})
    except ApiRefusal as refusal:
        if refusal.code != "operation_too_long":
            raise
        begun = await visit.api(
            "DELETE", f"/filesystem/{system}/transfer/rm", params={**_plain(path), "account": visit.form.get("account")}
        )
        visit.say("There is much to delete: a job on the system does it.")
        return visit.go(f"/portal/transfers/{begun['transferId']}")
    visit.say(f"“{shown(posixpath.basename(path))}” is deleted.")
    return visit.go(address_of(system, parent_of(path)))


@action(FILES)
async def fetch(visit: Visit) -> Response:
    """A download by a transfer; of a folder, as one tar archive."""
    system = system_of(visit).name
    wanted: dict[str, Any] = {**_plain(visit.query.get("path", "")), "transferDirectives": {"transferMethod": "s3"}}
    if visit.form.get("archive") == "tar":
        wanted["archive"] = "tar"
    wanted["account"] = visit.form.get("account")
    begun = await visit.api("POST", f"/filesystem/{system}/transfer/download", json=wanted, key=visit.form.get("key"))
    return visit.go(f"/portal/transfers/{begun['transferId']}")


def _name(visit: Visit, what: str) -> str:
    """One name, no path. Raises ApiRefusal."""
    name = visit.form.get("name", "")
    if not name.strip() or "/" in name or "\0" in name or name in {".", ".."} or shown(name) != name:
        raise ApiRefusal(400, "path_refused", f"{what} needs a name, and a name has no “/”.")
    return name


def _said(path: str) -> dict[str, str]:
    """As the API takes it; names that are not UTF-8 in base64."""
    if shown(path) == path:
        return {"path": path}
    return {"pathBase64": base64.b64encode(path.encode("utf-8", "surrogateescape")).decode()}


def _plain(path: str) -> dict[str, str]:
    """Raises ApiRefusal for what a transfer cannot carry."""
    if shown(path) != path:
        raise ApiRefusal(
            400, "path_refused", "Its name is not UTF-8, which transfers cannot carry; give it another name on the system first."
        )
    return {"path": path}


async def _exists(visit: Visit, system: str, path: str) -> bool:
    try:
        await visit.api("GET", f"/filesystem/{system}/ops/stat", params={"path": path})
    except ApiRefusal as refusal:
        if refusal.code == "file_missing":
            return False
        raise
    return True


routes = [
    Route(f"{OF_SYSTEM}/folder", make_folder, methods=["POST"]),
    Route(f"{OF_SYSTEM}/rename", rename, methods=["POST"]),
    Route(f"{OF_SYSTEM}/delete", ask_to_delete, methods=["GET"]),
    Route(f"{OF_SYSTEM}/delete", delete, methods=["POST"]),
    Route(f"{OF_SYSTEM}/fetch", fetch, methods=["POST"]),
]
