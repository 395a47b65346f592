"""Tries everything Stagecoach depends on, and says in plain words what is wrong and what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx

from stagecoach.core import names
from stagecoach.core.errors import AccountRequired, StagecoachError
from stagecoach.core.paths import expanded_roots
from stagecoach.flows.login_advice import credential_advice, login_advice
from stagecoach.flows.submit_job import choose_job_directory
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.files import FileKind
from stagecoach.ports.object_store import Audience


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing tried."""

    ok: bool
    what: str
    message: str


async def check_everything(
    tools: Toolbox, username: str, more: Mapping[str, Callable[[], Awaitable[str]]]
) -> AsyncIterator[Finding]:
    """Each finding as soon as it is made; ``more`` are the caller's own. A check leaves nothing behind but an empty bucket."""
    yield await _tried("database", lambda: _database(tools), "See database.url.")
    for what, check in more.items():
        yield await _tried(what, check, "")
    s3 = tools.settings.s3
    store = await _tried("s3", lambda: _store(tools, username), f"See s3.private_url ({s3.private_url}) and the keys in s3.")
    yield store
    if store.ok:
        yield await _tried("s3 presigned URLs for clients", lambda: _presigned(tools, username, "client", None), "")
    if not tools.systems:
        yield Finding(False, "systems", "none is configured; add one under 'systems' in the settings.")
    for name, system in tools.systems.items():
        async for finding in _check_system(tools, name, system, username, store_ok=store.ok):
            yield finding


async def _check_system(tools: Toolbox, name: str, system: System, username: str, *, store_ok: bool) -> AsyncIterator[Finding]:
    if system.login is not None:
        advice = credential_advice(name, system.settings, username)
        credential = await _tried(f"{name} credential", lambda: _credential(system, username), advice)
        yield credential
        if not credential.ok:
            return
    login = await _tried(f"{name} login", lambda: _login(system, username), login_advice(name, system.settings, username))
    yield login
    if not login.ok:
        return
    yield await _tried(f"{name} scheduler", lambda: system.scheduler.ping(username), f"See systems.{name}.scheduler.")
    if system.settings.scheduler.rest is not None:
        where = f"See systems.{name}.scheduler.rest."
        yield await _tried(f"{name} slurmrestd", lambda: system.compute.ping(username), where)
    yield await _tried(f"{name} directives", lambda: _directives(system, username), f"See systems.{name}.directives.")
    if system.settings.s3_url is not None and store_ok:
        yield await _tried(f"{name} presigned URLs", lambda: _presigned(tools, username, "system", name), "")
    where = f"See systems.{name}.work_directory."
    yield await _tried(f"{name} work directory", lambda: _work_directory(tools, system, username), where)
    for root in expanded_roots(system.settings.roots, username):
        where = f"See systems.{name}.file_systems."
        yield await _tried(f"{name} file system {root}", lambda root=root: _file_system(system, username, root), where)  # type: ignore[misc]


async def _tried(what: str, check: Callable[[], Awaitable[str]], advice: str) -> Finding:
    try:
        return Finding(True, what, await check())
    except StagecoachError as error:
        return Finding(False, what, f"{error.message} {advice}".strip())


async def _directives(system: System, username: str) -> str:
    try:
        await system.scheduler.try_directives(username, None)
    except AccountRequired:
        return "not tried: they need an account, which requests give."
    return "the scheduler would take them."


async def _database(tools: Toolbox) -> str:
    if not await tools.transfers.is_alive():
        raise StagecoachError("it does not answer, or its tables are missing: does the server run?")
    return "answers."


async def _store(tools: Toolbox, username: str) -> str:
    bucket = names.bucket_name(tools.settings.s3.bucket_prefix, username)
    await tools.store.ensure_bucket(bucket)
    key = names.ticket_key(names.CHECK_PREFIX + tools.new_id())
    try:
        await tools.store.write_object(bucket, key, b"check")
        content = await tools.store.read_object(bucket, key, 16)
    finally:
        await tools.store.delete_objects(bucket, [key])
    if content != b"check":
        raise StagecoachError("what was written could not be read back; check that s3.private_url is one store.")
    return f"a bucket ({bucket}) can be made, written, read and cleaned."


async def _presigned(tools: Toolbox, username: str, audience: Audience, system: str | None) -> str:
    """Tried from here; where only others reach the address, the message says so."""
    bucket = names.bucket_name(tools.settings.s3.bucket_prefix, username)
    key = names.ticket_key(names.CHECK_PREFIX + tools.new_id())
    url = tools.store.presign("PUT", bucket, key, audience=audience, ttl_seconds=60, system=system)
    address = url.split(f"/{bucket}", 1)[0]
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.put(url, content=b"check")
    except httpx.HTTPError as error:
        raise StagecoachError(
            f"{address} cannot be reached from here ({type(error).__name__}); if those who use it do, this can be ignored, "
            "else mend s3.public_url or the system's s3_url."
        ) from error
    finally:
        await tools.store.delete_objects(bucket, [key])
    if answer.status_code != 200:
        raise StagecoachError(
            f"{address} answered {answer.status_code} to a presigned URL; check s3.region, the keys, and that a proxy "
            "in front of the store keeps the Host header."
        )
    return f"{address} accepts them."


async def _credential(system: System, username: str) -> str:
    assert system.login is not None  # noqa: S101 - asked only then
    return f"{await system.login.show_credential(username)}."


async def _login(system: System, username: str) -> str:
    entered = "" if system.login is None else f": {await system.login.try_login(username)}"
    home = await system.files.home(username)
    return f"works as {username} (home {home}){entered}."


async def _work_directory(tools: Toolbox, system: System, username: str) -> str:
    directory = await choose_job_directory(system, username, names.CHECK_PREFIX + tools.new_id())
    await system.files.make_directory(username, directory)
    await system.files.write_file(username, f"{directory}/check", b"check", 0o600)
    await system.files.remove_tree(username, directory)
    return "can be written."


async def _file_system(system: System, username: str, root: str) -> str:
    status = await system.files.status(username, root, follow_symlinks=True)
    if status is None:
        raise StagecoachError("does not exist; mend systems.file_systems or have it made.")
    if status.kind is not FileKind.DIRECTORY:
        raise StagecoachError("is not a directory; mend systems.file_systems.")
    readable, writable = await system.files.may(username, root, "r"), await system.files.may(username, root, "w")
    free = await system.files.free_bytes(username, root)
    room = f", {free / 1e9:.1f} GB free" if free is not None else ""
    if not readable:
        raise StagecoachError(f"{username} may not read it.")
    return f"readable{' and writable' if writable else ' (not writable at its top)'}{room}."
