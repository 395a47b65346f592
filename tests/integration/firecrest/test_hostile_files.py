"""Requests that would lose a file, or let one out, if they were carried out as they are asked for."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.firecrest.service import FirecrestService
from tests.unit.api.answers import problem
from tests.unit.operations.orders import picture


@pytest.fixture
def things(top: Path) -> Path:
    """A file by every kind of name."""
    (top / "dir/sub").mkdir(parents=True)
    (top / "dir/sub/data").write_bytes(b"precious")
    os.link(top / "dir/sub/data", top / "hard")
    (top / "link").symlink_to("dir/sub/data")
    (top / "to-dir").symlink_to("dir")
    return top


OWN_SOURCE = [
    ("hard", "dir/sub/data", {}),
    ("dir/sub/data", "hard", {}),
    ("link", "dir/sub/data", {"dereference": True}),
    ("dir/sub/data", "link", {}),
    ("hard", "hard", {}),
    ("to-dir/sub/data", "dir/sub/data", {"matchPattern": ".*"}),
]
INSIDE = [
    ("dir", "dir/new.tar.gz", {}),
    ("dir/", "dir/sub/new.tar.gz", {}),
    ("dir", "to-dir/sub/data", {}),
    ("to-dir", "dir/new.tar.gz", {"dereference": True}),
    ("to-dir/", "dir/new.tar.gz", {}),
]


@pytest.mark.parametrize(("source", "target", "more"), OWN_SOURCE + INSIDE)
async def test_an_archive_never_takes_the_place_of_what_goes_into_it(
    http: httpx.AsyncClient, things: Path, source: str, target: str, more: dict[str, Any]
) -> None:
    before = picture(things)
    body = {"path": f"{things}/{source}", "targetPath": f"{things}/{target}", "compression": "gzip", **more}
    problem(await http.post("/compress", json=body), 400)
    assert picture(things) == before


@pytest.mark.parametrize(("source", "target", "more"), OWN_SOURCE[:5])
@pytest.mark.parametrize("operation", ["compress", "cp"])
async def test_a_job_is_not_begun_that_would_put_a_thing_over_itself(
    http: httpx.AsyncClient,
    service: FirecrestService,
    things: Path,
    operation: str,
    source: str,
    target: str,
    more: dict[str, Any],
) -> None:
    before = picture(things)
    body = {"path": f"{things}/{source}", "targetPath": f"{things}/{target}", "dereference": True}
    answer = await http.post(f"{service.url}/filesystem/{service.system}/transfer/{operation}", json=body)
    assert "same file" in problem(answer, 400)["message"]
    assert picture(things) == before


@pytest.mark.parametrize("operation", ["cp", "mv", "compress"])
async def test_a_link_never_takes_the_place_of_what_it_leads_to(
    http: httpx.AsyncClient, service: FirecrestService, things: Path, operation: str
) -> None:
    for target in ("dir/sub/data", "hard", "to-dir/sub/data"):
        body = {"path": f"{things}/link", "targetPath": f"{things}/{target}"}
        answer = await http.post(f"{service.url}/filesystem/{service.system}/transfer/{operation}", json=body)
        assert "same file" in problem(answer, 400)["message"]
    problem(await http.post("/compress", json=body), 400)


async def test_a_job_packs_nothing_away_that_it_leaves_out(
    http: httpx.AsyncClient, service: FirecrestService, things: Path
) -> None:
    for source, pattern in (("dir", None), ("to-dir/", None), ("dir", ".*")):
        body = {"path": f"{things}/{source}", "targetPath": f"{things}/to-dir/sub/data", "matchPattern": pattern}
        answer = await http.post(f"{service.url}/filesystem/{service.system}/transfer/compress", json=body)
        assert "without being in the archive" in problem(answer, 400)["message"]


@pytest.mark.parametrize("operation", ["cp", "mv"])
@pytest.mark.parametrize(("source", "target"), [("dir", "dir/sub"), ("dir", "to-dir/sub/new"), ("dir", "dir"), ("dir", "to-dir")])
async def test_a_directory_does_not_go_into_itself(
    http: httpx.AsyncClient, service: FirecrestService, things: Path, operation: str, source: str, target: str
) -> None:
    body = {"path": f"{things}/{source}", "targetPath": f"{things}/{target}"}
    problem(await http.post(f"{service.url}/filesystem/{service.system}/transfer/{operation}", json=body), 400)


@pytest.mark.parametrize("pattern", [None, ".*"])
@pytest.mark.parametrize("source", ["dir", "dir/", "way"])
async def test_no_link_is_followed_out_of_the_file_systems_into_an_archive(
    http: httpx.AsyncClient, service: FirecrestService, top: Path, source: str, pattern: str | None
) -> None:
    (service.home.parent / "secret").mkdir(exist_ok=True)
    (service.home.parent / "secret/key").write_bytes(b"secret")
    (top / "dir").mkdir()
    (top / "real").mkdir()
    (top / "dir/inner").symlink_to("../real")
    (top / "real/out").symlink_to(service.home.parent / "secret")
    (top / "way").symlink_to("dir")
    body = {"path": f"{top}/{source}", "targetPath": f"{top}/a.tar.gz", "compression": "gzip", "matchPattern": pattern}
    problem(await http.post("/compress", json={**body, "dereference": True}), 400)
    assert not (top / "a.tar.gz").exists()
    (top / "real/out").unlink()
    (top / "real/in").write_bytes(b"fine")
    assert (await http.post("/compress", json={**body, "dereference": True})).status_code == 204
    with tarfile.open(top / "a.tar.gz") as archive:
        assert any(name.endswith("inner/in") for name in archive.getnames())


async def test_a_file_system_is_not_removed_by_another_name(
    http: httpx.AsyncClient, service: FirecrestService, top: Path
) -> None:
    (top / "up").symlink_to(service.home.parent)
    for path in (f"{top}/up/home", f"{top}/up/home/", f"{top}/up"):
        answer = await http.delete("/rm", params={"path": path})
        if path == f"{top}/up":
            assert answer.status_code == 204, "the link itself"
        else:
            problem(answer, 400)
            body = {"path": path, "targetPath": f"{top}/moved"}
            problem(await http.post(f"{service.url}/filesystem/{service.system}/transfer/mv", json=body), 400)
            transfer = f"{service.url}/filesystem/{service.system}/transfer/rm"
            problem(await http.delete(transfer, params={"path": path}), 400)
    assert top.exists()


async def test_an_archive_is_unpacked_whole_or_not_at_all(http: httpx.AsyncClient, service: FirecrestService, top: Path) -> None:
    outside = service.home.parent / "outside"
    outside.mkdir(exist_ok=True)
    (top / "target").mkdir()
    (top / "target/out").symlink_to(outside)
    with tarfile.open(top / "a.tar", "w") as archive:
        for name in ("good", "out/bad"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"bad"))
    body = {"path": f"{top}/a.tar", "targetPath": f"{top}/target", "compression": "none"}
    problem(await http.post("/extract", json=body), 409)
    assert (os.listdir(top / "target"), os.listdir(outside)) == (["out"], [])


@pytest.mark.parametrize("owner", ["user.group", f"{os.getuid()}.{os.getgid()}", "--help", "a:b", "root:"])
async def test_an_owner_is_one_name(http: httpx.AsyncClient, top: Path, owner: str) -> None:
    (top / "f").write_bytes(b"x")
    answer = await http.put("/chown", json={"path": f"{top}/f", "owner": owner, "group": ""})
    assert answer.status_code in {400, 422}
    assert "successful" not in answer.text
