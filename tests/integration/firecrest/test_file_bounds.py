"""What pyfirecrest has no words for: names that are no text, sizes at the limits, bodies that end early, ways out."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import httpx
import pytest
from tests.integration.firecrest.service import FirecrestService
from tests.unit.api.answers import problem

RAW = b"\xff\xfe it's"
LIMIT = 5 * 1024**2


def form(content: bytes, name: bytes = b"f", boundary: bytes = b"xxx") -> dict[str, Any]:
    head = b"--" + boundary + b'\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n'
    body = head + b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--" + boundary + b"--\r\n"
    return {"content": body, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary.decode()}"}}


def encoded(path: bytes) -> str:
    return base64.b64encode(path).decode()


async def test_bytes_that_are_no_text_name_a_file_in_every_operation(http: httpx.AsyncClient, top: Path) -> None:
    directory, content = os.fsencode(top) + b"/" + RAW, b"content"
    path = directory + b"/" + RAW
    made = await http.post("/mkdir", json={"pathBase64": encoded(directory)})
    assert made.status_code == 201, made.text
    assert base64.b64decode(made.json()["output"]["nameBase64"]) == directory
    sent = await http.post(f"/upload?path={quote_from_bytes(directory)}", **form(content, RAW))
    assert sent.status_code == 204, sent.text
    with open(path, "rb") as file:
        assert file.read() == content
    at = f"path={quote_from_bytes(path)}"
    assert (await http.get(f"/download?{at}")).content == content
    assert (await http.get(f"/view?{at}")).json() == {"output": "content"}
    assert (await http.get(f"/checksum?{at}")).json()["output"]["checksum"] == hashlib.sha256(content).hexdigest()
    assert (await http.get(f"/stat?{at}")).json()["output"]["size"] == 7
    assert "ASCII" in (await http.get(f"/file?{at}")).json()["output"]
    (listed,) = (await http.get(f"/ls?path={quote_from_bytes(directory)}")).json()["output"]
    assert base64.b64decode(listed["nameBase64"]) == RAW
    changed = await http.put("/chmod", json={"sourcePathBase64": encoded(path), "mode": "600"})
    assert changed.json()["output"]["permissions"] == "rw-------"
    link = {"pathBase64": encoded(path), "linkPathBase64": encoded(directory + b"/link")}
    assert (await http.post("/symlink", json=link)).status_code == 201
    assert os.readlink(directory + b"/link") == path
    packing = {"pathBase64": encoded(directory), "targetPath": f"{top}/a.tgz"}
    assert (await http.post("/compress", json=packing)).status_code == 204
    (top / "out").mkdir()
    unpacking = {"path": f"{top}/a.tgz", "target_path": f"{top}/out"}
    assert (await http.post("/extract", json=unpacking)).status_code == 204
    with open(os.fsencode(top / "out") + b"/" + RAW + b"/" + RAW, "rb") as file:
        assert file.read() == content
    assert (await http.delete(f"/rm?path={quote_from_bytes(directory)}")).status_code == 204
    assert sorted(os.listdir(top)) == ["a.tgz", "out"]


@pytest.mark.parametrize("body", [{}, {"path": "/x", "pathBase64": "L3g="}, {"pathBase64": "?"}, {"pathBase64": ""}])
async def test_a_path_is_said_once(http: httpx.AsyncClient, body: dict[str, str]) -> None:
    problem(await http.post("/mkdir", json=body), 400)


async def test_what_fits_under_the_limit_travels_and_one_byte_more_is_sent_elsewhere(http: httpx.AsyncClient, top: Path) -> None:
    for size in (4_900_000, LIMIT):
        content = os.urandom(size)
        sent = await http.post("/upload", params={"path": str(top)}, **form(content))
        assert sent.status_code == 204, sent.text
        answer = await http.get("/download", params={"path": f"{top}/f"})
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-length"] == str(size)
        assert answer.content == content
    refused = problem(await http.post("/upload", params={"path": str(top)}, **form(content + b"x", b"g")), 413)
    assert refused["code"] == "file_too_large"
    assert "transfer/upload" in refused["message"]
    assert os.listdir(top) == ["f"]
    with open(top / "f", "ab") as file:
        file.write(b"x")
    refused = problem(await http.get("/download", params={"path": f"{top}/f"}), 413, "file_too_large")
    assert "transfer/download" in refused["message"]
    assert refused["data"] == {"limit_bytes": LIMIT, "size_bytes": LIMIT + 1}


async def test_a_body_without_an_announced_length_is_counted_as_well(http: httpx.AsyncClient, top: Path) -> None:
    async def pieces(content: bytes) -> Any:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    whole = form(os.urandom(LIMIT))
    sent = await http.post("/upload", params={"path": str(top)}, headers=whole["headers"], content=pieces(whole["content"]))
    assert sent.status_code == 204, sent.text
    assert (top / "f").stat().st_size == LIMIT


async def test_other_routes_take_no_larger_bodies_than_before(http: httpx.AsyncClient, top: Path) -> None:
    problem(await http.post("/mkdir", json={"path": f"{top}/{'x' * 800_000}"}), 413, "body_too_large")


async def until_there_are(count: int, directory: Path) -> list[str]:
    """The names in it, once there are so many."""
    for _ in range(1000):
        if len(names := sorted(os.listdir(directory))) == count:
            return names
        await asyncio.sleep(0.02)
    raise AssertionError(f"{directory} never had {count} names: {names}")


async def test_an_upload_that_is_cut_off_leaves_what_was(service: FirecrestService, top: Path) -> None:
    (top / "f").write_bytes(b"precious")
    whole = form(os.urandom(4_000_000))
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        f"POST /filesystem/{service.system}/ops/upload?path={top} HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {service.token}\r\nContent-Type: {whole['headers']['Content-Type']}\r\n"
        f"Content-Length: {len(whole['content'])}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + whole["content"][:3_000_000])
        hidden, name = await until_there_are(2, top)
        assert (hidden[:12], name) == (".stagecoach-", "f")
    assert await until_there_are(1, top) == ["f"]
    assert (top / "f").read_bytes() == b"precious"


BROKEN_FORMS = [
    b"",
    b"no form",
    form(b"x")["content"][:-10],
    form(b"x")["content"].replace(b'name="file"', b'name="other"'),
    form(b"x")["content"].replace(b'; filename="f"', b""),
    form(b"x")["content"].replace(b"--xxx--\r\n", b"") + form(b"y", b"g")["content"],
]


@pytest.mark.parametrize("body", BROKEN_FORMS, ids=lambda body: repr(body)[-30:])
async def test_what_is_no_form_with_one_file_is_refused_and_makes_nothing(
    http: httpx.AsyncClient, top: Path, body: bytes
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=xxx"}
    problem(await http.post("/upload", params={"path": str(top)}, content=body, headers=headers), 400)
    assert os.listdir(top) == []
    problem(await http.post("/upload", params={"path": str(top)}, content=form(b"x")["content"]), 400, "invalid_request")
    assert os.listdir(top) == []


@pytest.mark.parametrize("name", [b"../x", b"a/b", b"..", b".", b"", b"x" * 256, b"a\x00b"])
async def test_a_file_name_never_leaves_its_directory(http: httpx.AsyncClient, top: Path, name: bytes) -> None:
    (top / "inner").mkdir()
    problem(await http.post("/upload", params={"path": f"{top}/inner"}, **form(b"x", name)), 400)
    assert os.listdir(top) == ["inner"]
    assert os.listdir(top / "inner") == []


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (b"q%22uote", 'q"uote'),
        (b'q\\"uote', 'q"uote'),
        (b"back\\\\slash", "back\\slash"),
        (b"back\\slash", "back\\slash"),
        (b"line%0Abreak", "line\nbreak"),
        (b"50%25 off", "50%25 off"),
        (b"C:\\x", "C:\\x"),
        (b"semi; filename=evil", "semi; filename=evil"),
        ("日本".encode(), "日本"),
    ],
)
async def test_file_names_are_read_as_clients_write_them(http: httpx.AsyncClient, top: Path, sent: bytes, name: str) -> None:
    answer = await http.post("/upload", params={"path": str(top)}, **form(b"x", sent))
    assert answer.status_code == 204, answer.text
    assert os.listdir(top) == [name]


async def test_an_upload_keeps_the_mode_of_what_it_replaces_and_writes_through_a_link(http: httpx.AsyncClient, top: Path) -> None:
    (top / "real").write_bytes(b"old")
    (top / "real").chmod(0o604)
    (top / "link").symlink_to("real")
    assert (await http.post("/upload", params={"path": str(top)}, **form(b"new", b"link"))).status_code == 204
    assert ((top / "real").read_bytes(), (top / "real").stat().st_mode & 0o777) == (b"new", 0o604)
    assert (top / "link").is_symlink()
    (top / "out").symlink_to("/etc")
    (top / "nowhere").symlink_to("gone")
    (top / "directory").mkdir()
    for name, status in ((b"nowhere", 400), (b"directory", 400), (b"out", 400)):
        problem(await http.post("/upload", params={"path": str(top)}, **form(b"new", name)), status)
    assert sorted(os.listdir(top)) == ["directory", "link", "nowhere", "out", "real"]


async def test_a_part_of_a_file_is_counted_in_bytes(http: httpx.AsyncClient, top: Path) -> None:
    (top / "f").write_text("aé日z")

    async def view(**wanted: int) -> str:
        answer = await http.get("/view", params={"path": f"{top}/f", **wanted})
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["output"]
        return text

    assert await view(size=3) == "aé"
    assert await view(offset=1, size=2) == "é"
    assert await view(offset=3) == "日z"
    assert await view(offset=1, size=1) == "\N{REPLACEMENT CHARACTER}"
    assert await view(offset=100, size=5) == ""
    assert await view(size=0) == ""


@pytest.mark.parametrize(
    ("route", "wanted", "words"),
    [
        ("/head", {"bytes": 1, "lines": 1}, "not both"),
        ("/tail", {"bytes": 1, "lines": 1}, "not both"),
        ("/head", {"skipTrailing": "true"}, "skipped"),
        ("/tail", {"skipHeading": "true"}, "skipped"),
        ("/head", {"lines": -1}, "lines"),
        ("/view", {"size": "many"}, "size"),
        ("/view", {"offset": -1}, "offset"),
    ],
)
async def test_parts_that_contradict_themselves(
    http: httpx.AsyncClient, top: Path, route: str, wanted: dict[str, Any], words: str
) -> None:
    (top / "f").write_bytes(b"x")
    assert words in problem(await http.get(route, params={"path": f"{top}/f", **wanted}), 400)["message"]


async def test_more_text_than_one_view_gives_is_refused_and_never_cut_off(http: httpx.AsyncClient, top: Path) -> None:
    (top / "f").write_bytes(b"x\n")
    os.truncate(top / "f", 64 * 1024**2 + 1)
    at = {"path": f"{top}/f"}
    for route, wanted in (("/view", {}), ("/tail", {"lines": 2}), ("/head", {"skipTrailing": "true", "bytes": 0})):
        refused = problem(await http.get(route, params={**at, **wanted}), 413, "file_too_large")
        assert refused["data"]["limit_bytes"] == 64 * 1024**2
    assert (await http.get("/head", params=at | {"lines": "1"})).json()["output"]["content"] == "x\n"
    assert (await http.get("/view", params=at | {"size": "2"})).json() == {"output": "x\n"}


WAYS: list[tuple[str, str, str, dict[str, Any]]] = [
    *[("GET", f"/{verb}", "path", {}) for verb in ("ls", "head", "tail", "view", "checksum", "file", "stat", "download")],
    ("DELETE", "/rm", "path", {}),
    ("PUT", "/chmod", "path", {"mode": "600"}),
    ("PUT", "/chown", "path", {"owner": "root"}),
    ("POST", "/mkdir", "path", {"parent": True}),
    ("POST", "/symlink", "path", {"linkPath": "{top}/new"}),
    ("POST", "/symlink", "linkPath", {"path": "{top}/f"}),
    ("POST", "/compress", "path", {"targetPath": "{top}/new"}),
    ("POST", "/compress", "targetPath", {"path": "{top}/f"}),
    ("POST", "/extract", "path", {"targetPath": "{top}"}),
    ("POST", "/extract", "targetPath", {"path": "{top}/f.tar"}),
    ("POST", "/upload", "path", {}),
]


@pytest.mark.parametrize(("method", "route", "place", "rest"), WAYS, ids=lambda value: str(value)[:20])
async def test_nothing_outside_is_reached_by_any_operation(
    http: httpx.AsyncClient, service: FirecrestService, top: Path, method: str, route: str, place: str, rest: dict[str, Any]
) -> None:
    outside = service.home.parent / f"outside-{top.name}-{method}{route[1:]}{place}"
    (outside / "d").mkdir(parents=True)
    (outside / "d/f").write_bytes(b"secret")
    (top / "out").symlink_to(outside)
    (top / "f").write_bytes(b"x")
    with tarfile.open(top / "f.tar", "w") as archive:
        archive.add(top / "f", "f")
    rest = {name: value.format(top=top) if isinstance(value, str) else value for name, value in rest.items()}
    before = sorted(map(str, service.home.rglob("*")))
    inside = "d" if route in {"/upload", "/mkdir"} or (route, place) == ("/extract", "targetPath") else "d/f"
    for path in (f"{outside}/{inside}", f"{top}/out/{inside}", f"{top}/../x", "relative", "/", "//etc", f"{top}\0", ""):
        if method in {"GET", "DELETE"} or route == "/upload":
            more = form(b"x") if route == "/upload" else {}
            answer = await http.request(method, route, params={place: path}, **more)
        else:
            answer = await http.request(method, route, json={**rest, place: path})
        problem(answer, 400)
    assert sorted(map(str, service.home.rglob("*"))) == before
    assert (outside / "d/f").read_bytes() == b"secret"
    assert oct((outside / "d/f").stat().st_mode & 0o777) != "0o600"


async def test_a_whole_file_system_is_not_removed(http: httpx.AsyncClient, service: FirecrestService, top: Path) -> None:
    for path in (str(service.home), f"{service.home}/", f"//{service.home}/."):
        problem(await http.delete("/rm", params={"path": path}), 400, "path_refused")
    assert top.exists()


async def test_what_takes_longer_than_a_request_may_is_for_a_job(
    hasty_http: httpx.AsyncClient, hasty_service: FirecrestService
) -> None:
    http, top = hasty_http, hasty_service.home
    (top / "sparse").write_bytes(b"")
    os.truncate(top / "sparse", 1024**4)
    for asking in (
        http.get("/checksum", params={"path": f"{top}/sparse"}),
        http.post("/compress", json={"path": f"{top}/sparse", "targetPath": f"{top}/a.xz", "compression": "xz"}),
    ):
        refused = problem(await asking, 408, "operation_too_long")
        assert "job" in refused["message"]
    assert os.listdir(top) == ["sparse"]


async def test_many_checksums_keep_nobody_from_a_listing(hasty_http: httpx.AsyncClient, hasty_service: FirecrestService) -> None:
    http, top = hasty_http, hasty_service.home
    (top / "sparse").write_bytes(b"")
    os.truncate(top / "sparse", 1024**4)
    checksums = [asyncio.create_task(http.get("/checksum", params={"path": f"{top}/sparse"})) for _ in range(6)]
    listings = await asyncio.gather(*(http.get("/ls", params={"path": str(top)}) for _ in range(20)))
    assert {answer.status_code for answer in listings} == {200}
    at_work = subprocess.run(["pgrep", "-x", "-f", f"sha256sum .* {top}/sparse"], capture_output=True, text=True, check=True)
    assert len(at_work.stdout.split()) == 2, "so many of one user at once, as the settings have it"
    assert not any(task.done() for task in checksums)
    # Some wait for their turn, and are told within the same time.
    assert {(await task).status_code for task in checksums} == {408}


async def test_a_boundary_that_is_too_long_is_refused_as_a_form(http: httpx.AsyncClient, top: Path) -> None:
    sent = await http.post("/upload", params={"path": str(top)}, **form(b"content", boundary=b"b" * 257))
    problem(sent, 400)
    assert os.listdir(top) == []


@pytest.mark.parametrize("place", ["/head", "/tail"])
async def test_lines_that_are_too_long_for_an_answer_are_not_looked_through(
    http: httpx.AsyncClient, top: Path, place: str
) -> None:
    (top / "one line").touch()
    os.truncate(top / "one line", 1024**4)
    answer = await asyncio.wait_for(http.get(place, params={"path": f"{top}/one line"}), 30)
    assert problem(answer, 413)["code"] == "file_too_large"
