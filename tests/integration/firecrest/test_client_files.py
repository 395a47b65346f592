"""Every file operation of pyfirecrest, asynchronous and synchronous: what it gives back, what it does, what it raises."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from firecrest.FirecrestException import FirecrestException
from tests.integration.firecrest.service import SYSTEM, Client

Ask = Callable[..., Awaitable[Any]]
NAMES = [
    "plain",
    "with space",
    "it's",
    "$(touch pwned)",
    "`touch pwned`",
    "new\nline",
    "a\\b",
    "a;b|c&d",
    "<b>&amp;",
    "-rf",
    "*",
    "é",
    "日本",
    'quo"te',
    "x" * 255,
    "..x",
]


@pytest.fixture
def ask(client: Client) -> Ask:
    """A method of the client for the one system, whose arguments may be paths."""

    async def asked(method: str, *arguments: object, **options: Any) -> Any:
        return await client(method, SYSTEM, *map(str, arguments), **options)

    return asked


async def refused(status: int, words: str, asking: Any) -> None:
    with pytest.raises(FirecrestException) as caught:
        await asking
    answer = caught.value.responses[-1]
    assert answer.status_code == status, answer.text
    assert words in answer.json()["message"]


def shell(*words: str) -> str:
    return subprocess.run(words, capture_output=True, check=True).stdout.decode("utf-8", "replace")


@pytest.mark.parametrize("name", NAMES)
async def test_a_small_file_of_any_name_travels_there_and_back(ask: Ask, top: Path, tmp_path: Path, name: str) -> None:
    local, back, content = tmp_path / "local", tmp_path / "back", os.urandom(70_000)
    local.write_bytes(content)
    await ask("upload", local, directory=str(top), filename=name)
    assert (top / name).read_bytes() == content
    await ask("download", top / name, target_path=str(back))
    assert back.read_bytes() == content
    assert (await ask("checksum", top / name)) == {"algorithm": "SHA256", "checksum": hashlib.sha256(content).hexdigest()}
    assert (await ask("stat", top / name))["size"] == 70_000
    assert (await ask("chmod", top / name, "640"))["permissions"] == "rw-r-----"
    assert (await ask("file_type", top / name)) == shell("file", "-b", str(top / name)).strip()
    (file,) = await ask("list_files", top, show_hidden=True)
    assert file["name"] == name
    await ask("rm", top / name)
    assert os.listdir(top) == []
    assert not Path("pwned").exists()


@pytest.mark.parametrize("size", [0, 1, 1024**2 - 1])
async def test_sizes_up_to_the_clients_cut_over(ask: Ask, top: Path, tmp_path: Path, size: int) -> None:
    local, back, content = tmp_path / "local", tmp_path / "back", os.urandom(size)
    local.write_bytes(content)
    await ask("upload", local, directory=str(top), filename="f")
    assert (top / "f").read_bytes() == content
    await ask("download", top / "f", target_path=str(back))
    assert back.read_bytes() == content


async def test_stat_says_what_the_system_says(ask: Ask, top: Path) -> None:
    (top / "f").write_bytes(b"12345")
    (top / "l").symlink_to("f")
    for path, follow in ((top / "f", False), (top, False), (top / "l", False), (top / "l", True)):
        real = path.stat() if follow else path.lstat()
        assert await ask("stat", path, dereference=follow) == {
            "mode": real.st_mode,
            "ino": real.st_ino,
            "dev": real.st_dev,
            "nlink": real.st_nlink,
            "uid": real.st_uid,
            "gid": real.st_gid,
            "size": real.st_size,
            "atime": int(real.st_atime),
            "ctime": int(real.st_ctime),
            "mtime": int(real.st_mtime),
        }


async def test_what_is_missing_is_said_in_the_words_that_clients_look_for(ask: Ask, top: Path, tmp_path: Path) -> None:
    missing = top / "missing"
    await refused(404, f"stat: cannot statx '{missing}': No such file or directory", ask("stat", missing))
    with pytest.raises(FileNotFoundError):
        await ask("download", missing, target_path=str(tmp_path / "x"))
    for verb in ("view", "head", "tail", "checksum", "file_type", "list_files", "rm"):
        await refused(404, "No such file or directory", ask(verb, missing))
    await refused(404, "No such file or directory", ask("chmod", missing, "600"))
    await refused(404, "No such file or directory", ask("mkdir", missing / "below"))
    (tmp_path / "local").write_bytes(b"x")
    await refused(404, "No such file or directory", ask("upload", tmp_path / "local", directory=str(missing), filename="f"))


LINES = b"".join(b"line %d \xff\xc3\xa9\n" % number for number in range(1, 31)) + b"no end"


@pytest.mark.parametrize("count", [0, 1, 3, 31, 1000])
async def test_head_and_tail_give_what_the_commands_give(ask: Ask, top: Path, count: int) -> None:
    (top / "f").write_bytes(LINES)
    (top / "ended").write_bytes(LINES + b"\n")
    (top / "empty").write_bytes(b"")
    for path in (top / "f", top / "ended", top / "empty"):
        for unit, option, kind in (("num_lines", "-n", "lines"), ("num_bytes", "-c", "bytes")):
            for verb, skip, counts in (("head", "exclude_trailing", ("", "-")), ("tail", "exclude_beginning", ("", "+"))):
                for skipped, sign in zip((False, True), counts, strict=True):
                    got = await ask(verb, path, **{unit: count, skip: skipped})
                    assert got["content"] == shell(verb, option, f"{sign}{count}", str(path)), (verb, unit, skipped)
                    start, end = {
                        ("head", False): (0, count),
                        ("head", True): (0, -count),
                        ("tail", False): (-count, -1),
                        ("tail", True): (count, -1),
                    }[verb, skipped]
                    assert (got["contentType"], got["startPosition"], got["endPosition"]) == (kind, start, end)


async def test_head_and_tail_have_ten_lines_where_nothing_is_said(ask: Ask, top: Path) -> None:
    (top / "f").write_bytes(LINES)
    head, tail = await ask("head", top / "f"), await ask("tail", top / "f")
    assert head["content"] == shell("head", str(top / "f"))
    assert tail["content"] == shell("tail", str(top / "f"))
    assert (head["startPosition"], head["endPosition"]) == (0, 10)
    assert (tail["startPosition"], tail["endPosition"]) == (-10, -1)


async def test_a_file_larger_than_the_direct_limit_is_viewed_whole(ask: Ask, top: Path) -> None:
    # Characters of three bytes, so that pieces of any even size cut some.
    text = "日本" * (1024**2) + '\x01"\\\u2028 end'
    (top / "f").write_text(text)
    assert (top / "f").stat().st_size > 6 * 1024**2
    assert await ask("view", top / "f") == text


async def test_directories_links_and_modes(ask: Ask, top: Path) -> None:
    made = await ask("mkdir", top / "a")
    assert (made["name"], made["type"]) == (str(top / "a"), "d")
    await refused(400, "File exists", ask("mkdir", top / "a"))
    await ask("mkdir", top / "a", create_parents=True)
    await ask("mkdir", top / "b/c d/é", create_parents=True)
    assert (top / "b/c d/é").is_dir()
    (top / "b/f").write_bytes(b"")
    await refused(400, "File exists", ask("mkdir", top / "b/f", create_parents=True))
    await refused(400, "Not a directory", ask("mkdir", top / "b/f/g", create_parents=True))
    link = await ask("symlink", top / "b/f", top / "link")
    assert link["output"]["linkTarget"] == str(top / "b/f")
    assert (link["output"]["type"], link["output"]["name"]) == ("l", str(top / "link"))
    assert os.readlink(top / "link") == str(top / "b/f")
    await refused(400, "File exists", ask("symlink", top / "b", top / "link"))
    await ask("symlink", top / "not yet", top / "dangling")
    changed = await ask("chmod", top / "link", "4711")
    assert (changed["name"], changed["permissions"]) == (str(top / "link"), "rws--x--x")
    (top / "a").chmod(0o2700)
    assert (await ask("chmod", top / "a", "750"))["permissions"] == "rwxr-s---"
    assert (await ask("chmod", top / "a", "00750"))["permissions"] == "rwxr-x---"
    await ask("rm", top / "link")
    await ask("rm", top / "dangling")
    assert (top / "b/f").exists()
    await ask("rm", top / "b")
    assert os.listdir(top) == ["a"]


async def test_chown_takes_one_of_the_two(ask: Ask, top: Path) -> None:
    (top / "f").write_bytes(b"")
    mine = str(os.getuid())
    for owner, group in ((mine, None), (None, str(os.getgid())), (mine, ""), (mine, str(os.getgid()))):
        changed = await ask("chown", top / "f", owner=owner, group=group)
        assert changed["name"] == str(top / "f")
    await refused(400, "Give an owner", ask("chown", top / "f", owner=None, group=None))
    await refused(400, "invalid user", ask("chown", top / "f", owner="nobody.of.this.name", group=None))
    await refused(400, "invalid group", ask("chown", top / "f", owner=None, group="nobody.of.this.name"))
    await refused(400, "owner", ask("chown", top / "f", owner="--reference=/etc/passwd", group=None))


@pytest.mark.parametrize("compression", ["none", "gzip", "bzip2", "xz"])
async def test_a_tree_is_packed_and_unpacked(ask: Ask, top: Path, compression: str) -> None:
    tree = top / "it's a tree"
    (tree / "sub").mkdir(parents=True)
    for name in NAMES:
        (tree / "sub" / name).write_bytes(os.urandom(100))
    (tree / "link").symlink_to("sub")
    archive = top / "a.tar"
    await ask("compress", tree, archive, compression=compression)
    (top / "out").mkdir()
    await ask("extract", archive, top / "out", compression=compression)
    assert shell("diff", "-r", "--no-dereference", str(tree), str(top / "out" / tree.name)) == ""
    await ask("compress", tree, archive, compression=compression, match_pattern=r".*/[pé].*")
    with tarfile.open(archive) as opened:
        assert sorted(opened.getnames()) == ["./it's a tree/sub/plain", "./it's a tree/sub/é"]
    await ask("compress", tree / "link", archive, compression=compression, dereference=True)
    with tarfile.open(archive) as opened:
        assert "link/plain" in opened.getnames()
    assert sorted(os.listdir(top)) == ["a.tar", "it's a tree", "out"]
    await refused(404, "No such file or directory", ask("extract", archive, top / "nowhere", compression=compression))
    (top / "broken").write_bytes(b"no archive")
    await refused(400, "exit status:2 and error message:", ask("extract", top / "broken", top / "out"))


async def test_fifty_listings_at_once_are_fifty_answers(ask: Ask, top: Path) -> None:
    for number in range(20):
        (top / str(number)).write_bytes(b"")
    answers = await asyncio.gather(*(ask("list_files", top) for _ in range(50)))
    assert [len(answer) for answer in answers] == [20] * 50
