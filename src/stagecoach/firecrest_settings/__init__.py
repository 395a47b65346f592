"""FirecREST v2's configuration as settings of ours: what ``stagecoach convert-firecrest-config`` does.

All versions of its file so far are read: the store as ``storage``, as ``data_operation`` and as each cluster's
``data_operation``; keys in both forms; credentials with and without a type; the values of its Helm chart.
``docs/firecrest.md`` has the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from stagecoach.core.errors import SettingsError
from stagecoach.core.parts import MEBIBYTE
from stagecoach.firecrest_settings.credentials import convert_credentials
from stagecoach.firecrest_settings.identity import convert_identity
from stagecoach.firecrest_settings.reading import LeftSetting, Record, Theirs, wrong
from stagecoach.firecrest_settings.store import Store, put_store, read_store
from stagecoach.firecrest_settings.systems import convert_directives, convert_system
from stagecoach.firecrest_settings.writing import Ours
from stagecoach.settings import S3Settings, ServerSettings
from stagecoach.settings.identity import AuthSettings
from stagecoach.settings.systems import SystemSettings

HEADING = [
    "Made by 'stagecoach convert-firecrest-config' from a FirecREST v2 configuration.",
    "What says CHECK needs a person. What was not carried over is in the command's report.",
    "deploy/settings.example.yaml has every other setting, with a sentence each; docs/firecrest.md the way.",
]
FOLDER = "path:"
_PROBED = "the store is looked at with each system's services: systems[].probing"
ReadFolder = Callable[[str], list[tuple[str, str]]]
"""The YAML files of a folder: name and text."""
Limits = list[tuple[float | int, str]]
"""Each ``max_ops_file_size`` in bytes, and where it stands."""


@dataclass(frozen=True, slots=True)
class Converted:
    """Our file's text, how many places in it ask for a person, and what of theirs is not in it."""

    text: str
    checks: int
    left: tuple[LeftSetting, ...]


def yaml_files(folder: str) -> list[tuple[str, str]]:
    """As FirecREST reads ``clusters: path:…``. Raises OSError, UnicodeDecodeError."""
    files = sorted(path for path in Path(folder).expanduser().iterdir() if path.suffix == ".yaml")
    return [(path.name, path.read_text(encoding="utf-8")) for path in files]


def convert(text: str, secrets_directory: str = "/run/secrets", read_folder: ReadFolder = yaml_files) -> Converted:
    """Convert a configuration.

    Raises:
        SettingsError: it is no YAML, no configuration of FirecREST v2, holds what no settings can be made of, or names a
            folder of clusters that cannot be read.
    """
    return convert_document(_loaded(text, "the file"), secrets_directory, read_folder)


def convert_document(document: Any, secrets_directory: str, read_folder: ReadFolder = yaml_files) -> Converted:
    """The same of what was read from YAML. Raises SettingsError as well."""
    record = Record()
    root = _root(document, record)
    ours = Ours()
    ours.put("database.url", "sqlite+aiosqlite:////var/lib/stagecoach/stagecoach.db")
    ours.check("database.url", "FirecREST had none. SQLite is for one process; with more, postgresql+psycopg://…")
    _leave_what_has_no_place(root)
    stores = _put_systems(root, ours, read_folder)
    put_store(ours, stores, root, secrets_directory)
    convert_identity(root.section("auth"), ours)
    root.leave_unread()
    models: dict[str, type[BaseModel]] = {"server": ServerSettings, "s3": S3Settings, "auth": AuthSettings}
    models |= {f"systems.{number}": SystemSettings for number in range(len(ours.values["systems"]))}
    ours.settle(record, models)
    _require_different_names(ours)
    return Converted(ours.text(HEADING), ours.checks, tuple(record.left))


def _loaded(text: str, what: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The latter two are of dates that there are not, and of what is nested without end.
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        raise wrong(what, f"is not valid YAML{line}") from None


def _root(document: Any, record: Record) -> Theirs:
    if isinstance(document, dict) and isinstance(document.get("firecrest"), dict) and "clusters" not in document:
        # The values of its Helm chart.
        for key in document:
            if key != "firecrest":
                record.leave(str(key), "is the Helm chart's, not FirecREST's")
        return _root_of(document["firecrest"], "firecrest", record)
    return _root_of(document, "", record)


def _root_of(document: Any, place: str, record: Record) -> Theirs:
    is_theirs = isinstance(document, dict) and "clusters" in document
    if not is_theirs or not {"auth", "ssh_credentials", "sshCredentials"} & set(document):
        raise SettingsError(
            "This is no configuration of FirecREST v2: that is a mapping with clusters, auth and ssh_credentials."
        )
    return Theirs(document, place, record)


def _leave_what_has_no_place(root: Theirs) -> None:
    root.leave("app_debug", "there is log.level")
    root.leave("app_version", "is FirecREST's own")
    root.leave("apis_root_path", "the proxy in front takes such a prefix away before it passes a request on")
    root.leave("doc_servers", "the API's page at /docs speaks to where it came from")
    root.leave("logger", "there are log.level, log.json_lines and the audit log")


def _put_systems(root: Theirs, ours: Ours, read_folder: ReadFolder) -> list[tuple[Store, list[int]]]:
    """Every system, and the stores that they use."""
    stores: list[tuple[Store, list[int]]] = []
    limits: Limits = []
    if (storage := root.section("storage")) is not None and (store := _old_store(storage, limits)) is not None:
        stores.append((store, []))
    if (shared := root.section("data_operation")) is not None and (store := _operation_store(shared, limits)) is not None:
        stores.append((store, []))
    credentials = convert_credentials(root.section("ssh_credentials"))
    ours.put("systems", [])
    number = 0
    for cluster in _clusters(root, read_folder):
        if number == 0:
            ours.put("systems", {})
        if not convert_system(cluster, number, ours, credentials):
            continue
        operation = cluster.section("data_operation")
        for section in filter(None, (shared, cluster, operation)):
            convert_directives(section, f"systems.{number}", ours)
        if operation is not None and (store := _operation_store(operation, limits)) is not None:
            stores.append((store, [number]))
        number += 1
    if number == 0:
        ours.put("systems", [])
        ours.check("systems", "none of FirecREST's clusters could be carried over.")
    _put_direct_limit(limits, root, ours)
    return stores


def _clusters(root: Theirs, read_folder: ReadFolder) -> list[Theirs]:
    said = root.take("clusters")
    if isinstance(said, str) and said.startswith(FOLDER):
        try:
            files = read_folder(said.removeprefix(FOLDER))
        except (OSError, UnicodeDecodeError) as error:
            raise wrong(root.at("clusters"), f"the folder cannot be read ({type(error).__name__})") from error
        return [root.other(_loaded(text, name), name) for name, text in files]
    return root.sections("clusters")


def _put_direct_limit(limits: Limits, root: Theirs, ours: Ours) -> None:
    """The largest of all ``max_ops_file_size``, since there is one for all systems."""
    if not limits:
        return
    largest, place = max(limits)
    bounded = min(max(largest, MEBIBYTE), 1024 * MEBIBYTE)
    if bounded != largest:
        root.record.leave(place, f"{largest} is outside of {MEBIBYTE} to {1024 * MEBIBYTE}; {bounded} was taken")
    for limit, other in limits:
        if limit != largest:
            root.record.leave(other, f"differs from {place}, which was taken: there is one limit for all systems")
    ours.put("server.max_direct_file_bytes", bounded, place)


def _note_limit(theirs: Theirs, limits: Limits) -> None:
    if (limit := theirs.number("max_ops_file_size")) is not None:
        limits.append((limit, theirs.at("max_ops_file_size")))


def _old_store(storage: Theirs, limits: Limits) -> Store | None:
    _note_limit(storage, limits)
    storage.leave("probing", _PROBED)
    storage.leave("services_health", "is what FirecREST found, no setting")
    return read_store(storage)


def _operation_store(operation: Theirs, limits: Limits) -> Store | None:
    _note_limit(operation, limits)
    operation.leave("probing", _PROBED)
    transfer = operation.section("data_transfer")
    if transfer is None:
        return None
    for name in ("probing", "probing_services", "services_health"):
        transfer.leave(name, _PROBED)
    return read_store(transfer)


def _require_different_names(ours: Ours) -> None:
    names = [system["name"] for system in ours.values["systems"]]
    for name in names:
        if names.count(name) > 1:
            raise wrong("clusters", f"two of them would be named {name}")
