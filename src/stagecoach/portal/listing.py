"""A directory's listing as people look at it: sorted, filtered, in pages. Pure."""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stagecoach.core.paths import is_inside
from stagecoach.portal.words import moment_of

PAGE_ENTRIES = 200
SORTS = ("name", "size", "modified")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``name`` may hold surrogate escapes: its exact bytes."""

    name: str
    path: str
    type: str
    size_bytes: int
    modified: datetime | None
    user: str
    permissions: str
    link_target: str | None

    @property
    def is_directory(self) -> bool:
        """As it stands there; a link to a directory is a link."""
        return self.type == "d"

    @property
    def kind(self) -> str:
        """In a word."""
        return {"d": "folder", "-": "file", "l": "link"}.get(self.type, "special file")


@dataclass(frozen=True, slots=True)
class View:
    """How a directory is looked at."""

    sort: str = "name"
    is_descending: bool = False
    filter: str = ""
    shows_hidden: bool = False
    page: int = 1

    def query(self, **changes: object) -> dict[str, str]:
        """What the address of this view says, with changes; what is as always is left out."""
        said: dict[str, object] = {
            "sort": self.sort,
            "order": "down" if self.is_descending else "up",
            "filter": self.filter,
            "hidden": "yes" if self.shows_hidden else "no",
            "page": self.page,
        }
        usual = {"sort": "name", "order": "up", "filter": "", "hidden": "no", "page": "1"}
        chosen = {name: str(value) for name, value in {**said, **changes}.items()}
        return {name: value for name, value in chosen.items() if usual.get(name) != value}


@dataclass(frozen=True, slots=True)
class Page:
    """The entries of one page, and how many there are."""

    entries: Sequence[Entry]
    number: int
    page_count: int
    found_count: int
    all_count: int


def view_of(query: Mapping[str, str]) -> View:
    """From an address; whatever is no view is the usual one."""
    sort, number = query.get("sort", "name"), query.get("page", "1")
    return View(
        sort if sort in SORTS else "name",
        query.get("order") == "down",
        query.get("filter", "")[:255],
        query.get("hidden") == "yes",
        int(number) if number.isascii() and number.isdigit() and len(number) < 9 and int(number) else 1,
    )


def entry_of(file: Mapping[str, Any], directory: str) -> Entry:
    """From the API's line."""
    name = str(file["name"])
    if file.get("nameBase64"):
        name = base64.b64decode(file["nameBase64"]).decode("utf-8", "surrogateescape")
    return Entry(
        name,
        posixpath.join(directory, name),
        file["type"],
        int(file["size"]),
        moment_of(file["lastModified"]),
        file["user"],
        file["permissions"],
        file.get("linkTarget"),
    )


def page_of(entries: Sequence[Entry], view: View) -> Page:
    """Folders first, then by what the view says; names without regard to case."""
    wanted = view.filter.casefold()
    found = [entry for entry in entries if wanted in entry.name.casefold()]
    keys = {
        "name": lambda entry: (entry.name.casefold(), entry.name),
        "size": lambda entry: (entry.size_bytes, entry.name),
        "modified": lambda entry: (entry.modified.timestamp() if entry.modified else 0.0, entry.name),
    }
    found.sort(key=keys[view.sort], reverse=view.is_descending)
    found.sort(key=lambda entry: not entry.is_directory)
    page_count = max(1, -(-len(found) // PAGE_ENTRIES))
    number = min(view.page, page_count)
    shown = found[(number - 1) * PAGE_ENTRIES : number * PAGE_ENTRIES]
    return Page(shown, number, page_count, len(found), len(entries))


def crumbs(path: str, roots: Sequence[str]) -> list[tuple[str, str]]:
    """Name and path of each directory from the root that holds ``path`` down to it."""
    holding = [root for root in map(posixpath.normpath, roots) if is_inside(path, [root])]
    root = max(holding, key=len, default="/")
    found, here = [(root, root)], root
    for name in path[len(root) :].strip("/").split("/"):
        if name:
            here = posixpath.join(here, name)
            found.append((name, here))
    return found


def parent_of(path: str) -> str:
    """The directory that it is in."""
    return posixpath.dirname(path.rstrip("/")) or "/"
