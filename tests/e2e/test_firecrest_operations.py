"""FirecREST's own client and program copy, move, remove, pack and unpack: by real Slurm, and with ``stagecoach up`` alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from firecrest.FirecrestException import FirecrestException, TransferJobFailedException, TransferJobTimeoutException
from tests.e2e.firecrest_place import Place
from tests.e2e.own_service import own_service
from tests.e2e.testbed import Testbed
from tests.integration.firecrest.service import Program, client_of, refusal

MEBIBYTE = 1024**2
ODD = "it's $(touch pwned) & é"
Do = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["sync", "async", "program"])
async def do(request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> AsyncIterator[Do]:
    """``mv``, ``cp`` and so on with paths; returns when it is done, or raises."""
    if request.param == "program":
        program = Program(place.url, place.system, place.token, tmp_path)

        async def by_program(verb: str, *paths: Path) -> None:
            options = ["--force"] if verb == "rm" else []  # it asks a person first
            if (done := program.run(verb, *options, *paths)).returncode:
                raise RuntimeError(done.stdout + done.stderr)

        yield by_program
        return
    async with client_of(request.param, place.url, place.token) as client:

        async def by_client(verb: str, *paths: Path) -> Any:
            return await client(verb, place.system, *map(str, paths))

        yield by_client


def make_tree(top: Path) -> Path:
    """Of whom ``top`` is."""
    tree = top / "tree"
    (tree / ODD / "deep").mkdir(parents=True)
    (tree / ODD / "deep" / "file").write_bytes(os.urandom(3 * MEBIBYTE))
    (tree / "empty").write_bytes(b"")
    (tree / "link").symlink_to(ODD)
    owner = top.stat()
    for path in (tree, *tree.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return tree


def require_same(one: Path, other: Path) -> None:
    compared = subprocess.run(["diff", "-r", "--no-dereference", one, other], capture_output=True, check=False)
    assert (compared.returncode, compared.stdout, compared.stderr) == (0, b"", b"")


async def test_a_tree_is_copied_moved_packed_unpacked_and_removed(place: Place, do: Do) -> None:
    tree, copy, moved = make_tree(place.top), place.top / f"copy {ODD}", place.top / "moved"
    await do("cp", tree, copy)
    require_same(tree, copy)
    transfer = place.last_transfer()
    assert (transfer["state"], transfer["operation"]) == ("done", "cp"), transfer
    await do("mv", copy, moved)
    require_same(tree, moved)
    assert not copy.exists()
    await do("compress", moved, place.top / "packed.tar.gz")
    (place.top / "out").mkdir(mode=0o777)
    os.chmod(place.top / "out", 0o777)
    await do("extract", place.top / "packed.tar.gz", place.top / "out")
    require_same(tree, place.top / "out" / "moved")
    await do("rm", moved)
    assert sorted(os.listdir(place.top)) == ["out", "packed.tar.gz", "tree"]


async def test_what_cannot_be_done_is_said_and_changes_nothing(place: Place, do: Do) -> None:
    tree = make_tree(place.top)
    before = sorted(path.lstat() for path in place.top.rglob("*"))
    for verb, *paths in (
        ("cp", place.top / "missing", place.top / "copy"),
        ("mv", place.top / "missing", place.top / "copy"),
        ("rm", place.top / "missing"),
        ("cp", Path("/etc/passwd"), place.top / "copy"),
        ("mv", tree, Path("/etc/tree")),
        ("cp", tree, tree / "into itself"),
    ):
        with pytest.raises((FirecrestException, RuntimeError)) as error:
            await do(verb, *paths)
        if isinstance(error.value, FirecrestException):
            status, message = refusal(error)  # type: ignore[arg-type]
            assert status == (404 if "missing" in str(paths[0]) else 400), (verb, paths, message)
            assert not str(paths[0]).endswith("missing") or "No such file or directory" in message
    assert sorted(path.lstat() for path in place.top.rglob("*")) == before


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_what_only_the_job_finds_out_is_no_success(cluster: Place, form: str) -> None:
    tree = make_tree(cluster.top)
    # Nobody but root may read it, and only whoever walks the tree meets it.
    os.chown(tree / ODD / "deep" / "file", 0, 0)
    os.chmod(tree / ODD / "deep" / "file", 0o600)
    async with client_of(form, cluster.url, cluster.token) as client:
        with pytest.raises(TransferJobFailedException):
            await client("cp", cluster.system, str(tree), str(cluster.top / "copy"))
    transfer = cluster.last_transfer()
    assert transfer["state"] == "failed"
    assert "ermission" in transfer["reason"], transfer
    assert os.listdir(cluster.top) == ["tree"]


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_a_wait_that_takes_too_long_cancels_the_copy(cluster: Place, form: str) -> None:
    with (cluster.top / "large").open("wb") as file:
        for _ in range(512):
            file.write(os.urandom(MEBIBYTE))
    async with client_of(form, cluster.url, cluster.token) as client:
        with pytest.raises(TransferJobTimeoutException):
            await client("cp", cluster.system, str(cluster.top / "large"), str(cluster.top / "copy"), timeout=0.3)
    identity = cluster.last_transfer()["id"]
    transfer = cluster.ask("GET", f"/transfers/{identity}")
    assert transfer["state"] in {"cancelling", "cancelled"}, transfer


async def test_what_takes_too_long_for_a_request_becomes_a_job(testbed: Testbed, cluster: Place, tmp_path: Path) -> None:
    """compress and extract are asked for directly first; the client then asks for a job, and waits for it."""
    (cluster.top / "noise").write_bytes(os.urandom(40 * MEBIBYTE))
    (cluster.top / "out").mkdir()
    os.chmod(cluster.top / "out", 0o777)

    def hasty(settings: dict[str, Any]) -> None:
        settings["systems"] = [system for system in settings["systems"] if system["name"] == testbed.system]
        settings["systems"][0].setdefault("limits", {})["max_operation_seconds"] = 1

    with own_service(testbed, tmp_path, hasty) as own:
        async with client_of("async", own.url, cluster.token) as client:
            archive = str(cluster.top / "noise.tar.bz2")
            await client("compress", own.system, str(cluster.top / "noise"), archive, compression="bzip2")
            await client("extract", own.system, archive, str(cluster.top / "out"), compression="bzip2")
        transfers = own.alice.http.get("/transfers").json()["transfers"]
    assert [(each["operation"], each["state"]) for each in transfers] == [("extract", "done"), ("compress", "done")]
    assert (cluster.top / "out" / "noise").read_bytes() == (cluster.top / "noise").read_bytes()
