"""``ops/ls`` on the wire: FirecREST's exact keys and formats, names that are no text, and every refusal."""

from __future__ import annotations

import base64

import httpx
import pytest
from tests.fakes.world import World
from tests.unit.api.answers import problem

from stagecoach.api.firecrest.filesystem import _time
from stagecoach.ports.files import FileKind, FileStatus

LS = "/filesystem/alps/ops/ls"
HOME = "/home/alice"


async def test_a_listing_has_firecrests_keys_and_formats(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file(f"{HOME}/a b&c's", "alice", b"12345", 0o4755)
    world.files.add_symlink(f"{HOME}/link", "alice", "a b&c's")
    world.files.add_directory(f"{HOME}/tmp", "root", 0o1777)
    answer = await alice.get(LS, params={"path": HOME})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    common = {"user": "alice", "group": "g-alice", "lastModified": "1970-01-01T00:00:01"}
    root = {"user": "root", "group": "g-root"}
    assert answer.json() == {
        "output": [
            {"name": "a b&c's", "type": "-", "linkTarget": None, "permissions": "rwsr-xr-x", "size": "5", **common},
            {"name": "link", "type": "l", "linkTarget": "a b&c's", "permissions": "rwxrwxrwx", "size": "7", **common},
            {"name": "tmp", "type": "d", "linkTarget": None, "permissions": "rwxrwxrwt", "size": "0", **common, **root},
        ]
    }


async def test_every_option_reaches_the_listing(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_directory(f"{HOME}/d", "alice")
    world.files.add_file(f"{HOME}/d/.x", "alice", b"")
    world.files.add_symlink(f"{HOME}/link", "alice", "d")
    wanted = {"showHidden": "true", "recursive": "true", "numericUid": "true", "dereference": "true"}
    shown = (await alice.get(LS, params={"path": HOME, **wanted})).json()["output"]
    assert [(file["name"], file["type"], file["user"]) for file in shown] == [
        ("d", "d", "1000"),
        ("d/.x", "-", "1000"),
        ("link", "d", "1000"),
    ]
    no = dict.fromkeys(wanted, "false")
    assert [file["name"] for file in (await alice.get(LS, params={"path": HOME, **no})).json()["output"]] == ["d", "link"]
    (one,) = (await alice.get(LS, params={"path": f"{HOME}/d/.x"})).json()["output"]
    assert one["name"] == f"{HOME}/d/.x"


async def test_an_empty_directory_is_an_empty_list(alice: httpx.AsyncClient) -> None:
    assert (await alice.get(LS, params={"path": HOME})).json() == {"output": []}


async def test_names_are_shown_as_text_and_those_that_are_none_also_as_bytes(alice: httpx.AsyncClient, world: World) -> None:
    world.files.add_file(f"{HOME}/é\n日本", "alice", b"")
    world.files.add_directory(f"{HOME}/bad\udcff", "alice")
    world.files.add_symlink(f"{HOME}/bad\udcff/l", "alice", "to\udcfe")
    shown = {file["name"]: file for file in (await alice.get(LS, params={"path": HOME, "recursive": "1"})).json()["output"]}
    assert set(shown) == {"é\n日本", "bad\N{REPLACEMENT CHARACTER}", "bad\N{REPLACEMENT CHARACTER}/l"}
    assert "nameBase64" not in shown["é\n日本"]
    assert base64.b64decode(shown["bad\N{REPLACEMENT CHARACTER}"]["nameBase64"]) == b"bad\xff"
    assert base64.b64decode(shown["bad\N{REPLACEMENT CHARACTER}/l"]["nameBase64"]) == b"bad\xff/l"
    assert shown["bad\N{REPLACEMENT CHARACTER}/l"]["linkTarget"] == "to\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("route", "path", "status", "code", "words"),
    [
        (LS, f"{HOME}/none", 404, "file_missing", "No such file or directory"),
        (LS, f"{HOME}/new\nline", 404, "file_missing", "No such file or directory"),
        (LS, f"{HOME}/closed", 403, "permission_denied", "Permission denied"),
        (LS, "/etc", 400, "path_refused", "outside"),
        (LS, "relative", 400, "path_refused", "relative"),
        (LS, f"{HOME}/out/", 400, "path_refused", "symbolic link"),
        (LS, f"{HOME}/file/", 400, "not_a_directory", "not a directory"),
        (LS, f"{HOME}/\0", 400, "path_refused", "NUL"),
        (LS, "", 400, "validation_error", "path"),
        (LS, None, 400, "validation_error", "path"),
        (LS, "/" + "x" * 4096, 400, "validation_error", "4096"),
        ("/filesystem/nowhere/ops/ls", HOME, 404, "system_not_found", "System not found"),
    ],
)
async def test_what_cannot_be_listed_is_refused_in_words(
    alice: httpx.AsyncClient, world: World, route: str, path: str | None, status: int, code: str, words: str
) -> None:
    world.files.add_directory(f"{HOME}/closed", "root", 0o700)
    world.files.add_directory("/etc", "root")
    world.files.add_symlink(f"{HOME}/out", "alice", "/etc")
    world.files.add_file(f"{HOME}/file", "alice", b"")
    answer = await alice.get(route, params={} if path is None else {"path": path})
    assert words in problem(answer, status, code)["message"]


async def test_a_question_that_is_no_boolean_is_refused(alice: httpx.AsyncClient) -> None:
    problem(await alice.get(LS, params={"path": HOME, "recursive": "perhaps"}), 400, "validation_error")


async def test_another_users_home_is_outside(bob: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    problem(await bob.get(LS, params={"path": HOME}), 400, "path_refused")
    problem(await anonymous.get(LS, params={"path": HOME}), 401, "not_authenticated")


async def test_a_directory_that_is_too_large_and_a_system_that_is_away(alice: httpx.AsyncClient, world: World) -> None:
    limits = world.settings.systems[0].limits.model_copy(update={"max_listed_entries": 1})
    object.__setattr__(world.settings.systems[0], "limits", limits)
    world.files.add_file(f"{HOME}/1", "alice", b"")
    world.files.add_file(f"{HOME}/2", "alice", b"")
    assert problem(await alice.get(LS, params={"path": HOME}), 413, "listing_too_large")["data"] == {"limit": 1}
    world.files.unavailable = True
    problem(await alice.get(LS, params={"path": HOME}), 503, "system_unavailable")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00"),
        (1.999, "1970-01-01T00:00:01"),
        (-0.5, "1969-12-31T23:59:59"),
        (1_900_000_000.0, "2030-03-17T17:46:40"),
        (-1e18, "0001-01-01T00:00:00"),
        (1e18, "9999-12-31T23:59:59"),
    ],
)
def test_times_are_utc_whatever_a_file_claims(seconds: float, text: str) -> None:
    assert _time(seconds) == text


async def test_a_size_beyond_what_javascript_counts_is_exact(alice: httpx.AsyncClient, world: World) -> None:
    status = FileStatus(FileKind.FILE, 2**62 + 1, 0o600, 1000, 1000, 0.0, "-")
    world.files.add_file(f"{HOME}/sparse", "alice", b"")
    world.files._status = lambda path: status  # type: ignore[method-assign]
    (file,) = (await alice.get(LS, params={"path": f"{HOME}/sparse"})).json()["output"]
    assert file["size"] == str(2**62 + 1)
