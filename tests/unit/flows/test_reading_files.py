"""Parts of files, cut where pieces meet, against the commands themselves; and files that change while they are read."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.fakes.world import ALICE, World

from stagecoach.core.errors import FileMissing, FileTooLarge, NotAFile, SystemUnavailable
from stagecoach.flows import read_file as reading
from stagecoach.flows.read_file import Content, Slice, Window, open_download, open_text

PATH = "/home/alice/f"
CONTENTS = [b"", b"\n", b"a", b"a\n", b"\n\n\n", b"ab\ncd\n\nefgh\ni", b"ab\ncd\n\nefgh\ni\n", b"x" * 20, b"abc\n" * 9]


async def text(world: World, wanted: Slice | Window) -> bytes:
    async with open_text(world.tools, ALICE, "alps", PATH, wanted) as content:
        read = await all_of(content)
        assert len(read) == content.size_bytes
        return read


async def all_of(content: Content) -> bytes:
    return b"".join([piece async for piece in content.pieces])


@pytest.mark.parametrize("piece_bytes", [1, 3, 4, 100])
@pytest.mark.parametrize("content", CONTENTS, ids=repr)
async def test_parts_are_those_of_head_and_tail(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, piece_bytes: int, content: bytes
) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", piece_bytes)
    world.files.add_file(PATH, "alice", content)
    (tmp_path / "f").write_bytes(content)
    for option, unit in (("-n", "lines"), ("-c", "bytes")):
        for end, signs in (("head", ("", "-")), ("tail", ("", "+"))):
            for skipped, sign in zip((False, True), signs, strict=True):
                for count in (0, 1, 2, 3, 5, 9, 50):
                    command = [end, option, f"{sign}{count}", tmp_path / "f"]
                    expected = subprocess.run(command, capture_output=True, check=True).stdout
                    wanted = Slice(end, unit, count, skipped)  # type: ignore[arg-type]
                    assert await text(world, wanted) == expected, command


async def test_windows(world: World) -> None:
    world.files.add_file(PATH, "alice", b"0123456789")
    for offset in (0, 3, 10, 11):
        for size in (None, 0, 4, 100):
            end = None if size is None else offset + size
            assert await text(world, Window(offset, size)) == b"0123456789"[offset:end]


async def test_more_than_one_view_gives_is_refused(world: World) -> None:
    limit = world.settings.server.max_view_bytes
    world.files.add_file(PATH, "alice", bytes(limit + 1))
    with pytest.raises(FileTooLarge) as refused:
        await text(world, Window())
    assert refused.value.data == {"limit_bytes": limit, "size_bytes": limit + 1}
    assert len(await text(world, Window(1))) == limit


async def test_a_file_that_shrinks_meanwhile_never_passes_for_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", 4)
    world.files.add_file(PATH, "alice", b"0123456789")
    for opening in (
        open_download(world.tools, ALICE, "alps", PATH),
        open_text(world.tools, ALICE, "alps", PATH, Window()),
    ):
        async with opening as content:
            content.pieces.ag_frame.f_locals["file"]._content = b"0123"  # type: ignore[attr-defined]
            with pytest.raises(SystemUnavailable, match="shorter"):
                await all_of(content)


async def test_what_is_no_file_is_not_read(world: World) -> None:
    world.files.add_other(PATH, "alice")
    world.files.add_symlink("/home/alice/dangling", "alice", "gone")
    for path, kind in ((PATH, NotAFile), ("/home/alice", NotAFile), ("/home/alice/dangling", FileMissing)):
        for opening in (
            open_download(world.tools, ALICE, "alps", path),
            open_text(world.tools, ALICE, "alps", path, Window()),
        ):
            with pytest.raises(kind):
                async with opening:
                    pass
