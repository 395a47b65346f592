"""Listings: whole or refused, inside the file systems, links told as links."""

from __future__ import annotations

import asyncio

import pytest
from tests.fakes.world import ALICE, World

from stagecoach.core.errors import (
    FileMissing,
    ListingTooLarge,
    NotADirectory,
    PathRefused,
    PermissionRefused,
    SystemNotFound,
    SystemUnavailable,
)
from stagecoach.flows import list_directory as listing
from stagecoach.flows.list_directory import ListedFile, ListingOptions, list_directory

HOME = "/home/alice"


async def listed(world: World, path: str = HOME, **options: bool) -> list[ListedFile]:
    return await list_directory(world.tools, ALICE, "alps", path, ListingOptions(**options))


async def names(world: World, path: str = HOME, **options: bool) -> list[str]:
    return [file.name for file in await listed(world, path, **options)]


@pytest.fixture
def tree(world: World) -> World:
    """A home with a bit of everything."""
    files = world.files
    files.add_file(f"{HOME}/b", "alice", b"12345", 0o640)
    files.add_file(f"{HOME}/.hidden", "alice", b"")
    files.add_directory(f"{HOME}/a", "alice", 0o755)
    files.add_file(f"{HOME}/a/x", "bob", b"x")
    files.add_file(f"{HOME}/a-file", "stranger", b"")
    files.add_directory(f"{HOME}/.config", "alice")
    files.add_file(f"{HOME}/.config/y", "alice", b"")
    files.add_symlink(f"{HOME}/link", "alice", f"{HOME}/a")
    files.add_symlink(f"{HOME}/out", "alice", "/etc/passwd")
    files.add_symlink(f"{HOME}/nowhere", "alice", "gone")
    files.add_symlink(f"{HOME}/file-link", "alice", "b")
    files.add_directory("/etc", "root")
    files.add_file("/etc/passwd", "root", b"root:x:0:0:\n")
    return world


async def test_a_directory(tree: World) -> None:
    assert await names(tree) == ["a", "a-file", "b", "file-link", "link", "nowhere", "out"]
    found = {file.name: file for file in await listed(tree, HOME + "/")}
    assert (found["b"].status.type_letter, found["b"].status.size_bytes, found["b"].status.mode) == ("-", 5, 0o640)
    assert (found["b"].user, found["b"].group, found["b"].link_target) == ("alice", "g-alice", None)
    assert (found["a-file"].user, found["a-file"].group) == ("4711", "4711")
    assert (found["link"].status.type_letter, found["link"].link_target) == ("l", f"{HOME}/a")


async def test_numbers_of_users_are_not_resolved_when_numbers_are_wanted(tree: World) -> None:
    found = {file.name: (file.user, file.group) for file in await listed(tree, numeric_ids=True)}
    assert found["b"] == ("1000", "1000")


async def test_hidden_names(tree: World) -> None:
    assert (await names(tree, show_hidden=True))[:2] == [".config", ".hidden"]
    assert await names(tree, f"{HOME}/.config") == ["y"]
    assert await names(tree, f"{HOME}/.hidden") == [f"{HOME}/.hidden"]
    assert not any(name.startswith(".") for name in await names(tree, recursive=True))


async def test_recursion_shows_each_directory_before_what_is_in_it_and_walks_through_no_link(tree: World) -> None:
    tree.files.add_symlink(f"{HOME}/a/up", "alice", HOME)
    for dereference in (False, True):
        found = await names(tree, recursive=True, dereference=dereference)
        assert found == ["a", "a/up", "a/x", "a-file", "b", "file-link", "link", "nowhere", "out"]
    assert f"{HOME}/link" not in tree.files.listed


async def test_links_are_dereferenced_inside_the_file_systems_only(tree: World) -> None:
    found = {file.name: (file.status.type_letter, file.link_target) for file in await listed(tree, dereference=True)}
    assert found["link"] == ("d", None)
    assert found["file-link"] == ("-", None)
    assert found["nowhere"] == ("l", "gone")
    assert found["out"] == ("l", "/etc/passwd")


async def test_one_file_has_its_path_as_name(tree: World) -> None:
    (file,) = await listed(tree, f"{HOME}//./b")
    assert (file.name, file.status.size_bytes) == (f"{HOME}/b", 5)
    for path in (f"{HOME}/b/", f"{HOME}/b/."):
        with pytest.raises(NotADirectory, match="not a directory"):
            await listed(tree, path)


async def test_a_link_is_listed_itself_unless_its_path_ends_in_a_slash_or_links_are_dereferenced(tree: World) -> None:
    (link,) = await listed(tree, f"{HOME}/link")
    assert (link.name, link.link_target) == (f"{HOME}/link", f"{HOME}/a")
    assert await names(tree, f"{HOME}/link/") == ["x"]
    assert await names(tree, f"{HOME}/link", dereference=True) == ["x"]
    (file,) = await listed(tree, f"{HOME}/file-link", dereference=True)
    assert (file.name, file.status.size_bytes, file.link_target) == (f"{HOME}/file-link", 5, None)
    (dangling,) = await listed(tree, f"{HOME}/nowhere")
    assert dangling.link_target == "gone"
    with pytest.raises(FileMissing, match="to nothing"):
        await listed(tree, f"{HOME}/nowhere/")


async def test_what_is_outside_is_refused_also_through_links(tree: World) -> None:
    tree.files.add_symlink(f"{HOME}/way-out", "alice", "/etc")
    (link,) = await listed(tree, f"{HOME}/out")
    assert link.link_target == "/etc/passwd"
    for path in ("/etc", "/home/bob", "/", f"{HOME}/../bob", "relative", "", f"{HOME}/a\0b", f"{HOME}/way-out/",
                 f"{HOME}/way-out/passwd"):  # fmt: skip
        with pytest.raises(PathRefused):
            await listed(tree, path)
    for path in (f"{HOME}/out", f"{HOME}/way-out"):
        with pytest.raises(PathRefused):
            await listed(tree, path, dereference=True)


async def test_a_root_that_is_a_link_is_listed_as_the_directory_it_is(tree: World) -> None:
    tree.files.add_directory("/lustre", "root")
    tree.files.add_file("/lustre/f", "alice", b"")
    tree.files.add_symlink("/scratch", "root", "/lustre")
    assert await names(tree, "/scratch") == ["f"]
    tree.files.add_symlink(f"{HOME}/s", "alice", "/lustre/f")
    found = {file.name: file.status.type_letter for file in await listed(tree, dereference=True)}
    assert found["s"] == "-"


async def test_what_is_missing_or_closed(tree: World) -> None:
    with pytest.raises(FileMissing, match="No such file or directory"):
        await listed(tree, f"{HOME}/gone")
    with pytest.raises(SystemNotFound):
        await list_directory(tree.tools, ALICE, "nowhere", HOME, ListingOptions())
    tree.files.add_directory(f"{HOME}/a/closed", "bob", 0o711)
    with pytest.raises(PermissionRefused, match="Permission denied"):
        await listed(tree, f"{HOME}/a/closed")
    with pytest.raises(PermissionRefused, match="/home/alice/a/closed"):
        await listed(tree, recursive=True)
    tree.files.unavailable = True
    with pytest.raises(SystemUnavailable):
        await listed(tree)


async def test_a_directory_that_goes_away_in_a_recursive_listing_is_empty(tree: World) -> None:
    really = tree.files.list_directory

    async def vanishing(username: str, path: str, **options: object) -> object:
        if path.endswith("/a"):
            raise FileMissing("It went away.")
        return await really(username, path, **options)  # type: ignore[arg-type]

    tree.files.list_directory = vanishing  # type: ignore[method-assign, assignment]
    assert "a" in await names(tree, recursive=True)
    with pytest.raises(FileMissing):
        await listed(tree, f"{HOME}/a")


@pytest.mark.parametrize("recursive", [False, True])
async def test_more_than_the_limit_is_refused_and_never_cut_off(world: World, recursive: bool) -> None:
    limits = world.settings.systems[0].limits.model_copy(update={"max_listed_entries": 20})
    object.__setattr__(world.settings.systems[0], "limits", limits)
    world.files.add_directory(f"{HOME}/d", "alice")
    for number in range(19):
        directory = f"{HOME}/d" if recursive and number % 2 else HOME
        world.files.add_file(f"{directory}/{number}", "alice", b"")
    assert len(await names(world, recursive=recursive)) == 20
    world.files.add_file(f"{HOME}/.one-more", "alice", b"")
    with pytest.raises(ListingTooLarge) as refused:
        await names(world, recursive=recursive)
    assert refused.value.data == {"limit": 20}
    assert "20" in refused.value.message


async def test_a_listing_that_takes_too_long_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = asyncio.Event()

    async def waiting(*arguments: object, **options: object) -> None:
        await stuck.wait()

    monkeypatch.setattr(listing, "LISTING_SECONDS", 0.01)
    world.files.list_directory = waiting  # type: ignore[method-assign, assignment]
    with pytest.raises(ListingTooLarge, match="longer than"):
        await listed(world)
