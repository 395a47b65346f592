"""Looking at files: the systems, their directories, and one file or folder with what can be done with it."""

from __future__ import annotations

import posixpath
import secrets
import stat
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from stagecoach.core.paths import expanded_roots
from stagecoach.portal.api_calls import ApiRefusal, Params, query_text
from stagecoach.portal.file_responses import IMAGE_TYPES, FileResponse
from stagecoach.portal.listing import SORTS, View, crumbs, entry_of, page_of, parent_of, view_of
from stagecoach.portal.rendering import shown
from stagecoach.portal.visits import Visit, page
from stagecoach.settings import SystemSettings

FILES = "/portal/files"
OF_SYSTEM = FILES + "/{system}"
# What is no text is shown as U+FFFD by the API; a few may be an old encoding.
MOST_ODD_CHARACTERS = 0.05


@page
async def show_systems(visit: Visit) -> Response:
    """All that there are; where there is one file system only, its files."""
    systems = (await visit.api("GET", "/status/systems"))["systems"]
    places = [(system, roots_of(visit, system["name"])) for system in systems]
    if len(places) == 1 and len(places[0][1]) == 1 and "all" not in visit.query:
        (system, (root,)) = places[0]
        return visit.go(address_of(system["name"], root))
    return visit.render("systems.html", places=places, address_of=address_of)


@page
async def show_directory(visit: Visit) -> Response:
    """One page of a directory's listing; a file's own page where the path names a file."""
    system, roots = system_of(visit), roots_of(visit, visit.part("system"))
    path = _path(visit, roots)
    view = view_of(visit.query)
    context: dict[str, Any] = {
        "system": system,
        "directory": path,
        "crumbs": crumbs(path, roots),
        "roots": roots,
        "view": view,
        "sorts": SORTS,
        "trouble": "",
        "listed": None,
        "address_of": address_of,
        "link": lambda **changes: _view_address(system.name, path, view, **changes),
        "accounts": [],
        "is_odd": _is_odd(path),
    }
    try:
        question: Params = {"path": path.rstrip("/") + "/", "showHidden": view.shows_hidden}
        files = (await visit.api("GET", f"/filesystem/{system.name}/ops/ls", params=question))["output"]
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        if refusal.code == "not_a_directory":
            return visit.go(address_of(system.name, path, "entry"))
        return visit.render("files.html", refusal.status, **{**context, "trouble": refusal.message})
    context["listed"] = page_of([entry_of(file, path) for file in files], view)
    context["accounts"] = await accounts_of(visit, system)
    return visit.render("files.html", **context)


@page
async def show_entry(visit: Visit) -> Response:
    """One file or folder: what is known of it, a preview, and what can be done with it."""
    system, roots = system_of(visit), roots_of(visit, visit.part("system"))
    path = _path(visit, roots)
    facts = await _facts(visit, system.name, path)
    limit = visit.portal.settings.server.max_direct_file_bytes
    is_file = stat.S_ISREG(facts["mode"])
    is_small = is_file and facts["size"] <= limit
    extension = posixpath.splitext(path)[1].lower()
    text, trouble = None, ""
    if is_file and not (is_small and extension in IMAGE_TYPES):
        text, trouble = await _preview(visit, system.name, path)
    return visit.render(
        "entry.html",
        system=system,
        entry_path=path,
        name=posixpath.basename(path) or path,
        crumbs=crumbs(parent_of(path), roots),
        parent=parent_of(path),
        facts=facts,
        permissions=stat.filemode(facts["mode"]),
        modified=datetime.fromtimestamp(max(0, min(facts["mtime"], 253402300799)), UTC),
        is_directory=stat.S_ISDIR(facts["mode"]),
        is_small=is_small,
        is_image=is_small and extension in IMAGE_TYPES,
        is_root=path in {posixpath.normpath(root) for root in roots},
        is_odd=_is_odd(path),
        text=text,
        trouble=trouble,
        is_cut=text is not None and facts["size"] > visit.portal.settings.portal.max_preview_bytes,
        preview_bytes=visit.portal.settings.portal.max_preview_bytes,
        accounts=await accounts_of(visit, system),
        address_of=address_of,
        key=secrets.token_hex(16),
    )


@page
async def show_image(visit: Visit) -> Response:
    """For the preview: only kinds of images that browsers show without running anything."""
    path, system = _wanted(visit), system_of(visit)
    media_type = IMAGE_TYPES.get(posixpath.splitext(path)[1].lower())
    if media_type is None:
        raise HTTPException(404)
    return FileResponse(visit, system.name, path, media_type, as_attachment=False)


@page
async def download(visit: Visit) -> Response:
    """A small file, at once."""
    return FileResponse(visit, system_of(visit).name, _wanted(visit), "application/octet-stream", as_attachment=True)


def address_of(system: str, path: str, what: str = "", **more: str) -> str:
    """The page of a directory, or of a file (``what`` entry, image, download, delete)."""
    query = query_text({"path": path, **more})
    return f"{FILES}/{quote(system, safe='')}{'/' + what if what else ''}?{query}"


def system_of(visit: Visit) -> SystemSettings:
    """The one that the page's path names. Raises HTTPException (404)."""
    name = visit.part("system")
    for system in visit.portal.settings.systems:
        if system.name == name:
            return system
    raise HTTPException(404)


def roots_of(visit: Visit, system: str) -> list[str]:
    """Where this person's files are."""
    settings = next((one for one in visit.portal.settings.systems if one.name == system), None)
    roots = expanded_roots(settings.roots, visit.me["user"]) if settings is not None and visit.me["user"] else ()
    return list(dict.fromkeys(posixpath.normpath(root) for root in roots))


async def accounts_of(visit: Visit, system: SystemSettings) -> list[str] | None:
    """What a transfer here may be charged to; None where it is charged to nothing, empty where nobody knows."""
    if not system.needs_account:
        return None
    try:
        person = await visit.api("GET", f"/status/{system.name}/userinfo")
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        return []
    return [account["name"] for account in person["accounts"] or ()]


async def _facts(visit: Visit, system: str, path: str) -> dict[str, Any]:
    """What stat says, of what a link leads to where it leads anywhere."""
    question: Params = {"path": path, "dereference": True}
    try:
        found = await visit.api("GET", f"/filesystem/{system}/ops/stat", params=question)
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        found = await visit.api("GET", f"/filesystem/{system}/ops/stat", params={"path": path})
    return dict(found["output"])


async def _preview(visit: Visit, system: str, path: str) -> tuple[str | None, str]:
    """The beginning of a text, or why there is none."""
    question: Params = {"path": path, "bytes": visit.portal.settings.portal.max_preview_bytes}
    try:
        text = (await visit.api("GET", f"/filesystem/{system}/ops/head", params=question))["output"]["content"]
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        return None, refusal.message
    is_odd = "\0" in text or text.count("\N{REPLACEMENT CHARACTER}") > MOST_ODD_CHARACTERS * len(text)
    return (None, "This is no text, so there is no preview.") if is_odd else (text, "")


def _wanted(visit: Visit) -> str:
    path = visit.query.get("path", "")
    if not path:
        raise HTTPException(404)
    return path


def _path(visit: Visit, roots: list[str]) -> str:
    """The page's; the first root where none is named."""
    path = visit.query.get("path") or (roots[0] if roots else "/")
    return posixpath.normpath("/" + path.strip("/")) if ".." not in path.split("/") else path


def _view_address(system: str, path: str, view: View, **changes: object) -> str:
    return address_of(system, path, **view.query(**changes))


def _is_odd(path: str) -> bool:
    """Whether it holds bytes that are not UTF-8, which no transfer's request can carry."""
    return shown(path) != path


routes = [
    Route(FILES, show_systems),
    Route(OF_SYSTEM, show_directory),
    Route(f"{OF_SYSTEM}/entry", show_entry),
    Route(f"{OF_SYSTEM}/image", show_image),
    Route(f"{OF_SYSTEM}/download", download),
]
