"""FirecREST's own client, from PyPI, at work on real files over SSH: every file operation, as the user and nobody else."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import firecrest
import pytest
from firecrest.FirecrestException import FirecrestException
from tests.e2e.own_service import own_service
from tests.e2e.testbed import Person, Testbed, wait_until
from tests.integration.firecrest.service import Token

NAMES = ["plain", "with space", "it's", "$(touch pwned)", "new\nline", "a\\b", "a;b|c&d", "-rf", "*", "é", 'quo"te', "x" * 255]
MEBIBYTE = 1024**2


def client_of(testbed: Testbed, person: Person) -> Any:
    token = testbed.environment[f"{person.name.upper()}_TOKEN"]
    return firecrest.v2.AsyncFirecrest(firecrest_url=testbed.url, authorization=Token(token))


@pytest.fixture
async def client(testbed: Testbed) -> AsyncIterator[Any]:
    """Alice's."""
    made = client_of(testbed, testbed.alice)
    yield made
    await made.close_session()


@pytest.fixture
def top(testbed: Testbed) -> Iterator[Path]:
    """A fresh directory of alice's."""
    path = testbed.alice.home / f"f1 files {secrets.token_hex(6)}"
    path.mkdir(0o755)
    os.chown(path, testbed.alice.uid, pwd.getpwnam("alice").pw_gid)
    yield path
    shutil.rmtree(path)


def mine(testbed: Testbed, path: Path) -> Path:
    """The file, given to alice."""
    os.chown(path, testbed.alice.uid, pwd.getpwnam("alice").pw_gid)
    return path


async def refused(status: int, words: str, asking: Any) -> dict[str, Any]:
    with pytest.raises(FirecrestException) as caught:
        await asking
    answer = caught.value.responses[-1]
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert words in body["message"]
    return body


@pytest.mark.parametrize("name", NAMES)
async def test_every_operation_on_a_file_of_any_name(testbed: Testbed, client: Any, top: Path, tmp_path: Path, name: str) -> None:
    system, path, content = testbed.system, str(top / name), os.urandom(MEBIBYTE - 1)
    (tmp_path / "local").write_bytes(content)
    await client.upload(system, tmp_path / "local", directory=str(top), filename=name)
    assert (top / name).read_bytes() == content
    assert (top / name).stat().st_uid == testbed.alice.uid
    await client.download(system, path, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert (await client.checksum(system, path))["checksum"] == hashlib.sha256(content).hexdigest()
    real = (top / name).stat()
    assert await client.stat(system, path) == {
        "mode": real.st_mode,
        "ino": real.st_ino,
        "dev": real.st_dev,
        "nlink": 1,
        "uid": real.st_uid,
        "gid": real.st_gid,
        "size": len(content),
        "atime": int(real.st_atime),
        "ctime": int(real.st_ctime),
        "mtime": int(real.st_mtime),
    }
    said = subprocess.run(["file", "-b", path], capture_output=True, text=True, check=True).stdout.strip()
    assert await client.file_type(system, path) == said
    assert (await client.chmod(system, path, "640"))["permissions"] == "rw-r-----"
    changed = await client.chown(system, path, owner="alice", group="")
    assert (changed["user"], changed["name"]) == ("alice", path)
    head = await client.head(system, path, num_bytes=10)
    assert head["content"] == content[:10].decode("utf-8", "replace")
    tail = await client.tail(system, path, num_bytes=10)
    assert tail["content"] == content[-10:].decode("utf-8", "replace")
    await client.mkdir(system, str(top / "d" / name), create_parents=True)
    link = await client.symlink(system, path, str(top / "d" / name / name))
    assert link["output"]["linkTarget"] == path
    await client.compress(system, str(top / "d"), str(top / "a.tgz"), dereference=True)
    await client.mkdir(system, str(top / "out"))
    await client.extract(system, str(top / "a.tgz"), str(top / "out"))
    assert (top / "out/d" / name / name).read_bytes() == content
    for made in ("out", "d", "a.tgz"):
        await client.rm(system, str(top / made))
    await client.rm(system, path)
    assert os.listdir(top) == []
    assert not (testbed.alice.home / "pwned").exists()


async def test_a_large_view_and_a_direct_download_just_below_the_limit(
    testbed: Testbed, client: Any, top: Path, tmp_path: Path
) -> None:
    text = "日本語\n" * (6 * MEBIBYTE // 10 + 1)
    (top / "text").write_text(text)
    assert (top / "text").stat().st_size > 6 * MEBIBYTE
    assert await client.view(testbed.system, str(top / "text")) == text
    content = os.urandom(4_900_000)
    sent = await asyncio.to_thread(
        testbed.alice.http.post,
        f"/filesystem/{testbed.system}/ops/upload",
        params={"path": str(top)},
        files={"file": ("f", content)},
    )
    assert sent.status_code == 204, sent.text
    assert (top / "f").read_bytes() == content
    got = testbed.alice.http.get(f"/filesystem/{testbed.system}/ops/download", params={"path": str(top / "f")})
    assert got.content == content


async def test_fifty_listings_at_once_are_fifty_answers(testbed: Testbed, client: Any, top: Path) -> None:
    for number in range(20):
        (top / str(number)).touch()
    answers = await asyncio.gather(*(client.list_files(testbed.system, str(top)) for _ in range(50)))
    assert [len(answer) for answer in answers] == [20] * 50


async def test_what_is_not_permitted_or_not_there(testbed: Testbed, client: Any, top: Path, tmp_path: Path) -> None:
    system = testbed.system
    (top / "roots").mkdir(0o755)
    (top / "roots/f").write_bytes(b"x")
    (top / "roots/f").chmod(0o600)
    (tmp_path / "local").write_bytes(b"x")
    roots = str(top / "roots/f")
    for asking in (client.view(system, roots), client.head(system, roots), client.checksum(system, roots),
                   client.chmod(system, roots, "666"), client.rm(system, roots), client.mkdir(system, f"{roots}-d"),
                   client.symlink(system, roots, f"{roots}-l"), client.chown(system, roots, owner="alice", group=""),
                   client.upload(system, tmp_path / "local", directory=str(top / "roots"), filename="new"),
                   client.compress(system, roots, str(top / "a.tgz"))):  # fmt: skip
        await refused(403, "", asking)
    assert os.listdir(top / "roots") == ["f"]
    assert os.listdir(top) == ["roots"]
    missing = str(top / "missing")
    await refused(404, f"cannot statx '{missing}': No such file or directory", client.stat(system, missing))
    with pytest.raises(FileNotFoundError):
        await client.download(system, missing, tmp_path / "x")
    await refused(400, "File exists", client.mkdir(system, str(top / "roots")))
    await refused(400, "outside", client.view(system, "/etc/passwd"))
    (top / "out").symlink_to("/etc/passwd")
    await refused(400, "symbolic link", client.view(system, str(top / "out")))
    bobs = client_of(testbed, testbed.bob)
    await refused(400, "outside", bobs.view(system, roots))
    await bobs.close_session()


async def test_a_tree_is_packed_in_every_way(testbed: Testbed, client: Any, top: Path) -> None:
    system = testbed.system
    await client.mkdir(system, str(top / "tree/sub"), create_parents=True)
    for name in ("a.txt", "b.dat"):
        mine(testbed, Path(shutil.copy("/bin/ls", top / "tree/sub" / name)))
    for compression in ("none", "gzip", "bzip2", "xz"):
        archive, out = str(top / "archive"), str(top / f"out {compression}")
        await client.compress(system, str(top / "tree"), archive, compression=compression)
        await client.mkdir(system, out)
        await client.extract(system, archive, out, compression=compression)
        same = subprocess.run(["diff", "-r", top / "tree", f"{out}/tree"], capture_output=True, check=False)
        assert (same.returncode, same.stdout) == (0, b"")
    await client.compress(system, str(top / "tree"), archive, compression="none", match_pattern=r".*\.txt")
    with tarfile.open(archive) as opened:
        assert opened.getnames() == ["./tree/sub/a.txt"]


async def test_a_large_checksum_outlives_the_limit_of_a_command(testbed: Testbed, top: Path, tmp_path: Path) -> None:
    (top / "sparse").touch()
    os.truncate(top / "sparse", 6 * 1024**3)

    def impatient(settings: dict[str, Any]) -> None:
        settings["systems"] = [system for system in settings["systems"] if system["name"] == testbed.system]
        settings["systems"][0]["ssh"]["command_timeout_seconds"] = 3

    with own_service(testbed, tmp_path, impatient) as own:
        made = client_of(own, own.alice)
        digest = await made.checksum(own.system, str(top / "sparse"))
        await made.close_session()
    expected = hashlib.sha256()
    for _ in range(6 * 64):
        expected.update(bytes(16 * MEBIBYTE))
    assert digest == {"algorithm": "SHA256", "checksum": expected.hexdigest()}


async def test_what_takes_too_long_is_ended_on_the_cluster_too(testbed: Testbed, top: Path, tmp_path: Path) -> None:
    (top / "sparse").touch()
    os.truncate(top / "sparse", 1024**4)

    def hasty(settings: dict[str, Any]) -> None:
        settings["systems"] = [system for system in settings["systems"] if system["name"] == testbed.system]
        settings["systems"][0].setdefault("limits", {})["max_operation_seconds"] = 4

    with own_service(testbed, tmp_path, hasty) as own:
        made = client_of(own, own.alice)
        body = await refused(408, "job", made.checksum(own.system, str(top / "sparse")))
        assert body["code"] == "operation_too_long"
        await made.close_session()

    def at_work() -> str:
        return subprocess.run(["pgrep", "-fa", str(top)], capture_output=True, text=True, check=False).stdout

    wait_until(lambda: not at_work(), 20, f"nothing works on {top} any more: {at_work()}")


async def test_a_full_disk_is_called_one_and_keeps_what_was(testbed: Testbed, top: Path) -> None:
    small = top / "small"
    small.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0777", "tmpfs", small]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        (small / "f").write_bytes(b"precious")
        mine(testbed, small / "f")
        sent = await asyncio.to_thread(
            testbed.alice.http.post,
            f"/filesystem/{testbed.system}/ops/upload",
            params={"path": str(small)},
            files={"file": ("f", os.urandom(2 * MEBIBYTE))},
        )
        assert (sent.status_code, sent.json()["code"]) == (400, "no_space"), sent.text
        assert os.listdir(small) == ["f"]
        assert (small / "f").read_bytes() == b"precious"
    finally:
        subprocess.run(["umount", small], check=True)
