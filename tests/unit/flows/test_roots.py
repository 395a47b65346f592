"""Where a path really leads is asked on the cluster before it is decided on, wherever a path is taken; and told to the job."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.fakes.world import ALICE, World

from stagecoach.core import names
from stagecoach.core.errors import FileMissing, NotAFile, PathRefused, TargetExists
from stagecoach.core.transfer import Archive
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.list_directory import ListingOptions, list_directory

HOME = "/home/alice"
Way = Callable[[World, str], Awaitable[Any]]

WAYS: dict[str, Way] = {
    "upload": lambda world, path: begin_upload(world.tools, ALICE, "alps", path, 10),
    "upload of a directory": lambda world, path: begin_upload(world.tools, ALICE, "alps", path, 1024, archive=Archive.TAR),
    "download": lambda world, path: begin_download(world.tools, ALICE, "alps", path),
    "download of a directory": lambda world, path: begin_download(world.tools, ALICE, "alps", path, archive=Archive.TAR),
    "ls": lambda world, path: list_directory(world.tools, ALICE, "alps", path, ListingOptions(dereference=True)),
}


@pytest.fixture
def links(world: World) -> World:
    """Links of alice's that lead out: to a file, to a directory, by a chain, by a relative path, and to nothing."""
    files = world.files
    for directory in ("/etc", "/etc/d", "/home/alice2", "/home/alice2/d"):
        files.add_directory(directory, "alice", 0o777)
    for file in ("/etc/passwd", "/home/alice2/f"):
        files.add_file(file, "alice", b"not to be had")
    files.add_symlink(f"{HOME}/etc", "alice", "/etc")
    files.add_symlink(f"{HOME}/file", "alice", "/etc/passwd")
    files.add_symlink(f"{HOME}/relative", "alice", "../../etc/passwd")
    files.add_symlink(f"{HOME}/chain", "alice", f"{HOME}/second")
    files.add_symlink(f"{HOME}/second", "alice", f"{HOME}/file")
    files.add_symlink(f"{HOME}/neighbour", "alice", "/home/alice2")
    files.add_symlink(f"{HOME}/directory", "alice", "/etc/d")
    files.add_symlink(f"{HOME}/nothing", "alice", "/etc/nothing")
    return world


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["etc/passwd", "file", "relative", "chain", "neighbour/f", "etc/d", "directory", "neighbour/d"])
async def test_a_link_out_of_the_roots_is_no_way_out(links: World, way: str, path: str) -> None:
    before = dict(links.files.entries)
    with pytest.raises((PathRefused, NotAFile, TargetExists)) as refused:
        await WAYS[way](links, f"{HOME}/{path}")
    if "of a directory" not in way and not path.endswith(("directory", "/d")):
        assert "symbolic link" in refused.value.message
    assert links.files.entries == before
    assert (await links.all_transfers(), links.left_in_store(), links.scheduler.jobs) == ([], [], {})


@pytest.mark.parametrize("way", ["upload", "upload of a directory"])
async def test_a_new_name_behind_a_link_out_of_the_roots_is_not_made(links: World, way: str) -> None:
    for path in ("etc/new", "etc/d/new", "neighbour/new", "directory/new"):
        with pytest.raises(PathRefused, match="symbolic link"):
            await WAYS[way](links, f"{HOME}/{path}")
    assert await links.all_transfers() == []


async def test_a_link_to_nothing_is_nobodys_target_and_nobodys_source(links: World) -> None:
    for way in ("download", "download of a directory", "ls"):
        with pytest.raises((FileMissing, PathRefused)):
            await WAYS[way](links, f"{HOME}/nothing")
    for way in ("upload", "upload of a directory"):
        with pytest.raises((NotAFile, PathRefused, TargetExists)):
            await WAYS[way](links, f"{HOME}/nothing")
    assert await links.all_transfers() == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_root_with_the_users_name_is_that_users_only(world: World, way: str) -> None:
    world.files.add_file("/home/bob/f", "bob", b"x", 0o666)
    for path in ("/home/bob/f", "/home/bob", "/home/alice2/f", "/home/alice/../bob/f", "/home/{user}/f", "/home"):
        with pytest.raises(PathRefused):
            await WAYS[way](world, path)


def the_ticket(world: World, bucket: str, transfer_id: str) -> dict[str, Any]:
    ticket: dict[str, Any] = json.loads(world.store._buckets[bucket].objects[names.ticket_key(transfer_id)].content)
    return ticket


@pytest.mark.parametrize("direction", ["upload", "download"])
@pytest.mark.parametrize(("root", "told"), [("/home/alice", "/home/alice"), ("/work/alice", "/export/work/alice")])
async def test_the_job_is_told_below_which_directory_no_link_may_have_come_since(
    world: World, direction: str, root: str, told: str
) -> None:
    files = world.files
    (alps, *others) = world.settings.systems
    patterns = [{"path": "/home/{user}"}, {"path": "/work/{user}"}]
    alps = type(alps).model_validate({**alps.model_dump(), "file_systems": patterns})
    world.settings = world.settings.model_copy(update={"systems": (alps, *others)})
    world.tools = world.toolbox()
    for directory in ("/work", "/export", "/export/work", "/export/work/alice"):
        files.add_directory(directory, "alice", 0o755)
    files.add_symlink("/work/alice", "root", "/export/work/alice")
    files.add_file(f"{told}/there", "alice", b"x" * 10)
    begun = await WAYS[direction](world, f"{root}/there")
    assert begun.transfer.real_path == f"{told}/there"
    ticket = the_ticket(world, begun.transfer.bucket, begun.transfer.id)
    assert base64.b64decode(ticket["root_base64"]).decode() == told
    assert base64.b64decode(ticket["path_base64"]).decode() == f"{told}/there"
