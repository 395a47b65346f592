"""FirecREST's S3 stores, wherever its versions write them, as our one store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stagecoach.core.parts import MAX_PART_SIZE_BYTES, MIN_PART_SIZE_BYTES
from stagecoach.firecrest_settings.reading import Theirs
from stagecoach.firecrest_settings.writing import Ours
from stagecoach.settings.systems import MAX_URL_TTL_SECONDS
from stagecoach.settings.values import SECRET_FILE_PREFIX

OUR_PREFIX = "stagecoach-"
_SECRETS = {"access_key_id": "s3-access-key-id", "secret_access_key": "s3-secret-access-key"}
_PLAIN = ("private_url", "public_url", "region", "tenant")
_NO_POINT_TO_POINT = "Stagecoach has no point-to-point method: docs/decisions/0021-point-to-point.md says why"


@dataclass
class Store:
    """What one of their sections says of a store: values by our names, and where each of them stands."""

    place: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


def read_store(theirs: Theirs) -> Store | None:
    """A ``storage`` or ``data_transfer`` section; None for a method that needs no store."""
    method = theirs.text("service_type")
    if method not in (None, "s3"):
        theirs.leave_whole(f"the transfer method is {method}; {_NO_POINT_TO_POINT}")
        return None
    store = Store(theirs.place)

    def keep(name: str, value: Any, place: str) -> None:
        if value is not None:
            store.values[name], store.places[name] = value, place

    for name in (*_PLAIN, *_SECRETS):
        keep(name, theirs.text(name), theirs.at(name))
    keep("ttl", theirs.number("ttl"), theirs.at("ttl"))
    prefix = theirs.text("bucket_name_prefix")
    keep("bucket_prefix", None if prefix is None else prefix + OUR_PREFIX, theirs.at("bucket_name_prefix"))
    if (multipart := theirs.section("multipart")) is not None:
        keep("max_part_size", multipart.number("max_part_size"), multipart.at("max_part_size"))
        multipart.leave("use_split", "files are read in place, and never split on a disk")
        multipart.leave("tmp_folder", "nothing is split on a disk")
        multipart.leave("parallel_runs", "the mover measures how many connections help; systems[].mover_concurrency fixes it")
    if (lifecycle := theirs.section("bucket_lifecycle_configuration")) is not None:
        keep("bucket_lifecycle_configuration.days", lifecycle.number("days"), lifecycle.at("days"))
    theirs.leave("name", "there is one store, without a name")
    return store


def put_store(ours: Ours, stores: list[tuple[Store, list[int]]], theirs: Theirs, secrets_directory: str) -> None:
    """The first store becomes ours; of the others, whatever differs is left, but for how a system's nodes reach it.

    ``stores``: each with the numbers of the systems (of ours) that use it.
    """
    if not stores:
        ours.put("s3.private_url", "https://s3.example.org")
        ours.check("s3.private_url", "FirecREST had no S3 store; Stagecoach needs one, which clients and nodes can reach.")
        _put_secrets(ours, Store(""), theirs, secrets_directory)
        return
    first = stores[0][0]
    for name in _PLAIN:
        ours.put(f"s3.{name}", first.values.get(name), first.places.get(name))
    _put_secrets(ours, first, theirs, secrets_directory)
    _put_bounded(ours, first, theirs, "ttl", 60, MAX_URL_TTL_SECONDS)
    _put_bounded(ours, first, theirs, "max_part_size", MIN_PART_SIZE_BYTES, MAX_PART_SIZE_BYTES)
    days = "bucket_lifecycle_configuration.days"
    ours.put(f"s3.{days}", first.values.get(days), first.places.get(days))
    if "bucket_prefix" in first.values:
        ours.put("s3.bucket_prefix", first.values["bucket_prefix"], first.places["bucket_prefix"])
        ours.remark("s3.bucket_prefix", f"FirecREST's, and '{OUR_PREFIX}' behind it, so that both may use the account.")
    for store, systems in stores[1:]:
        _put_other_store(ours, first, store, systems, theirs)


def _put_secrets(ours: Ours, store: Store, theirs: Theirs, secrets_directory: str) -> None:
    for name, file_name in _SECRETS.items():
        path, value = f"s3.{name}", str(store.values.get(name, ""))
        if value.startswith(SECRET_FILE_PREFIX):
            ours.put(path, value)
            ours.remark(path, "FirecREST's file; the service must be able to read it.")
            if not value.startswith(f"{SECRET_FILE_PREFIX}/"):
                ours.check(path, "give the whole path: '~' is not filled in here.")
            continue
        ours.put(path, f"{SECRET_FILE_PREFIX}{secrets_directory}/{file_name}")
        ours.check(path, "put it into this file, readable by the service alone. Secrets are not copied.")
        if value:
            theirs.record.leave(store.places[name], f"a secret in the file itself is not copied: see {path}")


def _put_bounded(ours: Ours, store: Store, theirs: Theirs, name: str, least: int, most: int) -> None:
    value = store.values.get(name)
    if value is None:
        return
    bounded = min(max(value, least), most)
    if bounded != value:
        theirs.record.leave(store.places[name], f"{value} is outside of {least} to {most}; {bounded} was taken")
    ours.put(f"s3.{name}", bounded, store.places[name])


def _put_other_store(ours: Ours, first: Store, store: Store, systems: list[int], theirs: Theirs) -> None:
    differing = [name for name in {**first.values, **store.values} if first.values.get(name) != store.values.get(name)]
    same_place = all(name not in differing for name in ("public_url", "access_key_id", "tenant"))
    for name in differing:
        place = store.places.get(name, store.place)
        if name == "private_url" and same_place and name in store.values:
            for number in systems:
                ours.put(f"systems.{number}.s3_url", store.values[name], place)
        else:
            theirs.record.leave(place, f"differs from {first.place}, which was taken: there is one store")
    if not same_place:
        for number in systems:
            ours.check(
                f"systems.{number}",
                "FirecREST staged this system's data in another store. Here all systems share one, which its nodes must "
                "reach; else run a second Stagecoach.",
            )
