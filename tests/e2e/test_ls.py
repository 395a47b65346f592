"""Listings of real directories over the wire and by the program, against what the disk itself says."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.testbed import Person, Testbed

NAMES = [
    "plain",
    "with space",
    "it's",
    '"quoted"',
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
    "x" * 255,
    ".hidden",
]


@pytest.fixture
def directory(testbed: Testbed) -> Iterator[Path]:
    """A fresh one of alice's."""
    path = testbed.alice.home / f"ls {secrets.token_hex(6)}"
    path.mkdir(0o755)
    os.chown(path, testbed.alice.uid, pwd.getpwnam("alice").pw_gid)
    yield path
    shutil.rmtree(path)


def ls(testbed: Testbed, path: str | Path, person: Person | None = None, **options: bool) -> list[dict[str, Any]]:
    asked = {"path": str(path), **{name: str(value).lower() for name, value in options.items()}}
    answer = (person or testbed.alice).http.get(f"/filesystem/{testbed.system}/ops/ls", params=asked)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"output"}
    output: list[dict[str, Any]] = answer.json()["output"]
    return output


def on_disk(path: str, name: str) -> dict[str, Any]:
    """The line that the answer must have."""
    found = os.lstat(path)
    is_link = stat.S_ISLNK(found.st_mode)
    return {
        "name": name,
        "type": stat.filemode(found.st_mode)[0],
        "linkTarget": os.readlink(path) if is_link else None,
        "user": pwd.getpwuid(found.st_uid).pw_name,
        "group": grp.getgrgid(found.st_gid).gr_name,
        "permissions": stat.filemode(found.st_mode)[1:],
        "lastModified": datetime.fromtimestamp(int(found.st_mtime), UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "size": str(found.st_size),
    }


def test_every_name_is_listed_as_the_disk_has_it(testbed: Testbed, directory: Path) -> None:
    for number, name in enumerate(NAMES):
        (directory / name).write_bytes(b"x" * number)
        os.chown(directory / name, testbed.alice.uid if number % 2 else 0, -1)
        (directory / name).chmod(0o600 + number)
        os.utime(directory / name, (number, 86_400 * number))
    (directory / "sub").mkdir(0o1777)
    (directory / "to sub").symlink_to("sub")
    (directory / "dangling").symlink_to("/nowhere/é")
    os.mkfifo(directory / "fifo")
    every = sorted(os.listdir(directory), key=os.fsencode)
    assert ls(testbed, directory, showHidden=True) == [on_disk(str(directory / name), name) for name in every]
    assert [file["name"] for file in ls(testbed, directory)] == [name for name in every if not name.startswith(".")]
    numbers = {file["name"]: (file["user"], file["group"]) for file in ls(testbed, directory, numericUid=True)}
    assert numbers["with space"] == (str(testbed.alice.uid), str(os.lstat(directory / "with space").st_gid))
    assert numbers["plain"][0] == "0"
    for name in NAMES:
        assert ls(testbed, directory / name) == [on_disk(str(directory / name), str(directory / name))]


def test_bytes_that_are_no_text_and_owners_without_a_name(testbed: Testbed, directory: Path) -> None:
    path = os.fsencode(directory) + b"/\xff\xfe"
    os.close(os.open(path, os.O_CREAT))
    os.chown(path, 2_000_000_123, 2_000_000_124)
    (file,) = ls(testbed, directory)
    assert base64.b64decode(file["nameBase64"]) == b"\xff\xfe"
    assert (file["name"], file["user"], file["group"]) == ("\N{REPLACEMENT CHARACTER}" * 2, "2000000123", "2000000124")


def test_links(testbed: Testbed, directory: Path) -> None:
    (directory / "real").mkdir()
    (directory / "real/f").write_bytes(b"12345")
    (directory / "link").symlink_to("real")
    (directory / "out").symlink_to("/etc/passwd")
    assert [file["type"] for file in ls(testbed, directory / "link")] == ["l"]
    assert [file["name"] for file in ls(testbed, f"{directory}/link/")] == ["f"]
    followed = {file["name"]: file["type"] for file in ls(testbed, directory, dereference=True)}
    assert followed == {"real": "d", "link": "d", "out": "l"}


def test_recursion(testbed: Testbed, directory: Path) -> None:
    for number in range(300):
        (directory / f"d{number % 30}" / f"e{number}").mkdir(parents=True)
        (directory / f"d{number % 30}" / f"e{number}" / "f").write_bytes(b"")
    (directory / "d1/loop").symlink_to("..")
    expected = sorted((str(path.relative_to(directory)) for path in directory.rglob("*")), key=lambda name: name.split("/"))
    listed = ls(testbed, directory, recursive=True)
    assert [file["name"] for file in listed] == expected
    assert listed == [on_disk(str(directory / name), name) for name in expected]


def test_a_large_directory_is_whole_or_refused_and_keeps_nobody_waiting(testbed: Testbed, directory: Path) -> None:
    for number in range(50_000):
        os.close(os.open(directory / f"{number:05}", os.O_CREAT, 0o644))
    listed = ls(testbed, directory)
    assert [file["name"] for file in listed] == [f"{number:05}" for number in range(50_000)]
    (directory / "one more").touch()
    asked = {"path": str(directory)}
    answer = testbed.alice.http.get(f"/filesystem/{testbed.system}/ops/ls", params=asked)
    assert (answer.status_code, answer.json()["code"]) == (413, "listing_too_large")
    assert answer.json()["data"] == {"limit": 50_000}


REFUSED: list[tuple[str, int, str]] = [
    ("{home}/nowhere", 404, "No such file or directory"),
    ("{top}/closed", 403, "Permission denied"),
    ("/etc", 400, "outside"),
    ("/home/bob", 400, "outside"),
    ("{top}/way out/", 400, "symbolic link"),
    ("{home}/../bob", 400, "'..'"),
    ("relative", 400, "relative"),
    ("", 400, "path"),
]


@pytest.mark.parametrize(("path", "status", "words"), REFUSED, ids=lambda value: ascii(value)[:32])
def test_refusals(testbed: Testbed, directory: Path, path: str, status: int, words: str) -> None:
    (directory / "closed").mkdir(0o700)  # root's
    (directory / "way out").symlink_to("/etc")
    asked = {"path": path.format(home=testbed.alice.home, top=directory)}
    answer = testbed.alice.http.get(f"/filesystem/{testbed.system}/ops/ls", params=asked)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["message"]


def test_the_program_lists_too(testbed: Testbed, directory: Path, tmp_path: Path) -> None:
    (directory / "b\x1b[2J").write_bytes(b"123")
    (directory / ".a").symlink_to("b")
    service = {"STAGECOACH_URL": testbed.url, "STAGECOACH_TOKEN": testbed.environment["ALICE_TOKEN"]}
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", **service}

    def stagecoach(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("stagecoach")
        return subprocess.run([program, "ls", *arguments], env=environment, capture_output=True, text=True, timeout=60)

    place = f"{testbed.system}:{directory}"
    assert stagecoach(place).stdout == "b\\x1b[2J\n"
    link, file = stagecoach(place, "-la").stdout.splitlines()
    assert link.startswith("lrwxrwxrwx ")
    assert link.endswith(" .a -> b")
    assert file.split()[1:4] == ["root", grp.getgrgid((directory / "b\x1b[2J").stat().st_gid).gr_name, "3"]
    assert json.loads(stagecoach(place, "-a", "--json").stdout)["output"] == ls(testbed, directory, showHidden=True)
    missing = stagecoach(f"{place}/none", "--json")
    assert (missing.returncode, json.loads(missing.stdout)["error"]["code"]) == (4, "file_missing")
    assert stagecoach(f"{testbed.system}:/etc").returncode == 1
