"""Every command, its answers for people and for programs, and its exit codes."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import httpx
import pytest
from tests.trees import make_tree, require_equal
from tests.unit.cli.conftest import Run
from tests.unit.client.fake_service import ID, TOKEN, URL, FakeService, listed, problem
from tests.unit.mover.faulty_store import PART, some_bytes

from stagecoach.cli.config import config_file
from stagecoach.cli.running import EXIT_CODES
from stagecoach.cli.words import Remote, as_remote, plain, size

CONTENT = some_bytes(3 * PART + 5)
REPOSITORY = Path(__file__).resolve().parents[3]


def test_cp_up_and_down(stagecoach: Run, service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    up = stagecoach("cp", str(tmp_path / "a.bin"), "alps:/scratch/")
    assert up.exit_code == 0, up.output
    assert f"Transfer {ID}" in up.stderr
    assert "alps:/scratch/a.bin" in up.stdout
    assert service.store.objects["object"] == CONTENT
    (tmp_path / "down").mkdir()
    down = stagecoach("cp", "alps:/scratch/a.bin", str(tmp_path / "down"), "--json")
    assert down.exit_code == 0, down.output
    assert (tmp_path / "down" / "a.bin").read_bytes() == CONTENT
    document = json.loads(down.stdout)
    assert (document["id"], document["state"], document["clientLeg"]["bytesMoved"]) == (ID, "done", len(CONTENT))


def test_cp_between_two_systems(stagecoach: Run, service: FakeService) -> None:
    service.size_bytes, service.looks_until_done = 100, 2
    sent = stagecoach("cp", "alps:/home/alice/a.bin", "bora:/scratch/", "--account", "acc")
    assert sent.exit_code == 0, sent.output
    assert f"Transfer {ID}" in sent.stderr
    assert "receiving: A sentence." in sent.stderr
    assert "alps:/home/alice/a.bin → bora:/scratch/a.bin" in sent.stdout
    assert service.begun_with == {
        "source": {"system": "alps", "path": "/home/alice/a.bin"},
        "destination": {"system": "bora", "path": "/scratch/a.bin"},
        "account": "acc",
    }
    shown = stagecoach("transfers", "show", ID).stdout
    assert "  source      alps:/home/alice/a.bin  moving  50 B of 100 B  job 8" in shown
    assert "  destination bora:/scratch/a.bin  moving  50 B of 100 B  job 8" in shown
    assert shown.count("  | a word") == 2
    document = json.loads(stagecoach("cp", "alps:/a", "alps:/b", "--json").stdout)
    assert [leg["leg"] for leg in document["legs"]] == ["source", "destination"]


def test_cp_r_between_two_systems_takes_what_there_is(stagecoach: Run, service: FakeService) -> None:
    service.looks_until_done, service.names_directory = 1, True
    assert stagecoach("cp", "-r", "alps:/home/alice/tree/", "bora:/scratch/").exit_code == 0
    assert service.begun_with["archive"] == "tar"
    assert service.begun_with["destination"]["path"] == "/scratch/tree"
    refused = stagecoach("cp", "alps:/home/alice/tree", "bora:/scratch/x")
    assert refused.exit_code == 1
    assert "stagecoach cp -r" in refused.stderr
    service.names_directory, service.looks_until_done = False, 1
    assert stagecoach("cp", "-r", "alps:/home/alice/a", "bora:/scratch/b").exit_code == 0
    assert "archive" not in service.begun_with
    assert stagecoach("cp", "alps:/", "bora:/scratch/b").exit_code == 2


def test_cp_between_two_nodes_takes_a_road(stagecoach: Run, service: FakeService) -> None:
    service.looks_until_done = 1
    ends = ("node:scope:/a", "node:scope:/b")
    assert stagecoach("cp", "--road", "direct", "--rate-limit", "1000000", *ends).exit_code == 0
    assert (service.begun_with["road"], service.begun_with["rateLimitBytesPerSecond"]) == ("direct", 1000000)
    assert stagecoach("cp", "--road", "sideways", *ends).exit_code == 2
    assert stagecoach("cp", "--road", "direct", "alps:/home/alice/a", "./here").exit_code == 2


def test_a_stopped_transfer_says_how_it_goes_on(stagecoach: Run, service: FakeService) -> None:
    service.state = "moving"
    assert f"stagecoach transfers retry {ID}" in stagecoach("transfers", "stop", ID).stdout


def test_a_retried_relay_is_watched(stagecoach: Run, service: FakeService) -> None:
    service.source = service.destination = {"system": "alps", "path": "/x"}
    service.state, service.retry_until = "failed", "2031-01-01T00:00:00Z"
    assert f"transfers watch {ID}" in stagecoach("transfers", "retry", ID).stdout


def test_ls(stagecoach: Run, service: FakeService) -> None:
    assert stagecoach("ls", "alps:/scratch").output == ""
    link = listed("a\x1b[2J", type="l", linkTarget="b", permissions="rwxrwxrwx", size="1")
    service.listing = [link, listed("long name", user="a-stranger", size="12345"), listed("é")]
    assert stagecoach("ls", "alps:/scratch/a b").stdout == "a\\x1b[2J\nlong name\né\n"
    assert service.listed_with == {"path": "/scratch/a b"}
    assert stagecoach("ls", "alps:/scratch", "-l").stdout.splitlines() == [
        "lrwxrwxrwx alice      users     1 2030-01-01T00:00:00 a\\x1b[2J -> b",
        "-rw-r--r-- a-stranger users 12345 2030-01-01T00:00:00 long name",
        "-rw-r--r-- alice      users     5 2030-01-01T00:00:00 é",
    ]
    document = json.loads(stagecoach("ls", "alps:/scratch", "-aRn", "--json").stdout)
    assert document == {"output": service.listing}
    assert service.listed_with == {"path": "/scratch", "showHidden": "true", "recursive": "true", "numericUid": "true"}


@pytest.mark.parametrize("place", ["/scratch", "alps", "alps:scratch", "./alps:/x", "alps:/\udcff"])
def test_ls_wants_a_place_on_a_system(stagecoach: Run, service: FakeService, place: str) -> None:
    assert stagecoach("ls", place).exit_code == 2
    assert service.asked == []


def test_ls_says_what_the_service_says(stagecoach: Run, service: FakeService) -> None:
    for answer, code in ((problem(404, "file_missing"), 4), (problem(413, "listing_too_large"), 1)):
        service.answers_first = [answer]
        assert stagecoach("ls", "alps:/scratch").exit_code == code


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree(tmp_path / "a tree", 20)
    return tmp_path / "a tree"


@pytest.mark.parametrize(
    ("given", "remote", "becomes"),
    [
        ("a tree", "/scratch/", "/scratch/a tree"),
        ("a tree/", "/scratch/", "/scratch/a tree"),
        ("a tree", "/scratch/other", "/scratch/other"),
        ("a tree/inner/..", "/scratch/", "/scratch/a tree"),
        ("a tree/.", "/scratch/", "/scratch/a tree"),
    ],
)
def test_cp_of_a_directory_goes_where_cp_would_put_it(
    stagecoach: Run, service: FakeService, tree: Path, given: str, remote: str, becomes: str
) -> None:
    tree.chmod(0o700)
    (tree / "inner").mkdir()
    done = stagecoach("cp", "-r", f"{tree.parent}/{given}", f"alps:{remote}")
    assert done.exit_code == 0, done.output
    assert service.begun_with["path"] == becomes
    assert service.begun_with["archive"] == "tar"
    with tarfile.open(fileobj=io.BytesIO(service.store.objects["object"])) as archive:
        assert "inner" in archive.getnames()


@pytest.mark.parametrize(
    ("remote", "local", "becomes", "again"),
    [
        ("/scratch/a tree", "new", "new", 0),
        ("/scratch/a tree/", "new", "new", 0),
        ("/scratch/a tree", "there", "there/a tree", 1),
        ("/scratch/a tree//", "there/", "there/a tree", 1),
        ("/", "new", "new", 2),
    ],
)
def test_cp_of_a_remote_directory_goes_where_cp_would_put_it(
    stagecoach: Run, service: FakeService, tree: Path, tmp_path: Path, remote: str, local: str, becomes: str, again: int
) -> None:
    assert stagecoach("cp", "-r", str(tree), "alps:/scratch/").exit_code == 0
    (tmp_path / "there").mkdir()
    service.names_directory = True
    done = stagecoach("cp", "--recursive", f"alps:{remote}", f"{tmp_path}/{local}", "--json")
    assert done.exit_code == 0, done.output
    assert (json.loads(done.stdout)["state"], json.loads(done.stdout)["archive"]) == ("done", "tar")
    assert service.begun_with["path"] == (remote.rstrip("/") or "/")
    require_equal(tree, tmp_path / becomes)
    assert stagecoach("cp", "-r", f"alps:{remote}", f"{tmp_path}/{local}").exit_code == again


def test_cp_of_a_directory_without_r_is_refused_with_a_hint(
    stagecoach: Run, service: FakeService, tree: Path, tmp_path: Path
) -> None:
    up = stagecoach("cp", str(tree), "alps:/scratch/")
    assert up.exit_code == 2
    assert "cp -r" in up.output
    assert service.asked == []
    service.names_directory = True
    down = stagecoach("cp", "alps:/scratch/tree", str(tmp_path / "new"))
    assert down.exit_code == 1
    assert "cp -r" in down.stderr
    assert stagecoach("cp", "alps:/scratch/tree/", str(tmp_path / "new")).exit_code == 2
    assert stagecoach("cp", "-r", "/", "alps:/scratch/").exit_code == 2
    assert stagecoach("cp", "-r", "alps:/", str(tmp_path)).exit_code == 2


def test_cp_r_of_a_file_copies_the_file(stagecoach: Run, service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert stagecoach("cp", "-r", str(tmp_path / "a.bin"), "alps:/scratch/").exit_code == 0
    assert service.begun_with.get("archive") is None
    done = stagecoach("cp", "-r", "alps:/scratch/a.bin", str(tmp_path / "back.bin"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "back.bin").read_bytes() == CONTENT


def test_a_size_that_is_not_known_yet_is_told(stagecoach: Run, service: FakeService) -> None:
    service.size_bytes, service.archive, service.state = None, "tar", "queued"
    service.direction = "download"
    assert "size not known yet" in stagecoach("transfers", "list").stdout
    shown = stagecoach("transfers", "show", ID)
    assert "a directory, as a tar stream" in shown.stdout
    assert json.loads(stagecoach("transfers", "list", "--json").stdout)["transfers"][0]["sizeBytes"] is None


@pytest.mark.parametrize("places", [("a", "b"), ("x:/", "b"), ("x:/a/", "b"), ("x:/a/", "y:/b"), ("x:/", "y:/b")])
def test_cp_wants_a_file_and_a_place_on_a_system(stagecoach: Run, service: FakeService, places: tuple[str, str]) -> None:
    assert stagecoach("cp", *places).exit_code == 2
    assert service.asked == []


def test_transfers_list_show_watch_cancel(stagecoach: Run, service: FakeService) -> None:
    service.size_bytes, service.state, service.reason = 2048, "failed", "The quota\x1b[2J is used up."
    listed = stagecoach("transfers", "list")
    assert listed.stdout == f"{ID}  failed  → alps:/scratch/a.bin  2.0 KiB  The quota\\x1b[2J is used up.\n"
    assert json.loads(stagecoach("transfers", "list", "--json").stdout)["transfers"][0]["id"] == ID
    assert "Begun." in stagecoach("transfers", "show", ID).stdout
    assert json.loads(stagecoach("transfers", "show", ID, "--json").stdout)["history"][0]["message"] == "Begun."
    watched = stagecoach("transfers", "watch", ID, "--json")
    assert watched.exit_code == 1
    assert json.loads(watched.stdout)["error"]["transferId"] == ID
    service.state = "receiving"
    assert json.loads(stagecoach("transfers", "cancel", ID, "--json").stdout)["state"] == "cancelled"


@pytest.mark.parametrize(("direction", "state"), [("upload", "receiving"), ("download", "queued")])
def test_a_failed_transfer_that_is_kept_is_retried_and_says_how_to_go_on(
    stagecoach: Run, service: FakeService, direction: str, state: str
) -> None:
    service.size_bytes, service.direction, service.state, service.code = 2048, direction, "failed", "no_space"
    service.retry_until = "2030-01-02T12:00:00Z"
    watched = json.loads(stagecoach("transfers", "watch", ID, "--json").stdout)["error"]
    assert f"stagecoach transfers retry {ID}" in watched["nextStep"]
    assert "retry    until 2030-01-0" in stagecoach("transfers", "show", ID).stdout
    retried = stagecoach("transfers", "retry", ID)
    assert retried.exit_code == 0, retried.output
    assert f"{ID}  {state}" in retried.stdout
    assert f"stagecoach transfers resume {ID}" in retried.stdout
    again = stagecoach("transfers", "retry", ID, "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout)["error"]["code"] == "wrong_state"


def test_resume_says_what_is_missing(stagecoach: Run, service: FakeService, tmp_path: Path) -> None:
    service.size_bytes = len(CONTENT)
    unknown = stagecoach("transfers", "resume", ID)
    assert unknown.exit_code == 1
    assert "say which local file" in unknown.stderr
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert stagecoach("transfers", "resume", ID, str(tmp_path / "a.bin"), "--json").exit_code == 0
    assert service.store.objects["object"] == CONTENT


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(401, "not_authenticated", "The token has expired."), 3),
        (problem(404, "transfer_not_found"), 4),
        (problem(403, "permission_denied"), 1),
        (problem(503, "system_unavailable"), 75),
        (httpx.ConnectError("x"), 75),
    ],
)
def test_exit_codes(stagecoach: Run, service: FakeService, answer: httpx.Response | Exception, code: int) -> None:
    service.answers_first = [answer] * 50
    result = stagecoach("transfers", "show", ID, "--json")
    assert result.exit_code == code, result.output
    error = json.loads(result.stdout)["error"]
    assert error["message"]
    assert error["message"] in result.stderr


def test_a_wrong_token_is_told_in_a_sentence(stagecoach: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGECOACH_TOKEN", "another")
    result = stagecoach("transfers", "list")
    assert result.exit_code == 3
    assert "The token is not valid." in result.stderr
    assert "stagecoach login" in result.stderr


def test_nobody_logged_in(stagecoach: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAGECOACH_URL")
    result = stagecoach("transfers", "list")
    assert result.exit_code == 3
    assert "stagecoach login URL" in result.stderr
    assert service.asked == []


def test_login_keeps_what_the_service_took(stagecoach: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STAGECOACH_TOKEN")
    monkeypatch.delenv("STAGECOACH_URL")
    assert stagecoach("login", URL, input="wrong\n").exit_code == 3
    assert not config_file().exists()
    assert stagecoach("login", URL, input=f"{TOKEN}\n").exit_code == 0
    assert config_file().stat().st_mode & 0o777 == 0o600
    assert stagecoach("transfers", "list").exit_code == 0
    (tmp_path / "token").write_text(TOKEN + "\n")
    again = stagecoach("login", URL + "/", "--token-file", str(tmp_path / "token"), "--json")
    assert json.loads(again.stdout) == {"url": URL, "configFile": str(config_file())}


def test_a_kept_token_is_never_sent_to_another_service(
    stagecoach: Run, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STAGECOACH_TOKEN")
    assert stagecoach("login", URL, input=f"{TOKEN}\n").exit_code == 0
    monkeypatch.setenv("STAGECOACH_URL", "https://another.example.org")
    assert stagecoach("transfers", "list").exit_code == 3
    assert service.asked == ["GET /auth/methods", "GET /transfers"]


def test_login_sends_no_token_in_the_open_to_another_machine(stagecoach: Run) -> None:
    refused = stagecoach("login", "http://transfer.example.org", input=f"{TOKEN}\n")
    assert refused.exit_code == 2
    assert "--insecure-http" in refused.stderr


@pytest.mark.parametrize("arguments", [["login", "ftp://x"], ["transfers", "list", "--limit", "0"], ["nonsense"]])
def test_wrong_usage(stagecoach: Run, arguments: list[str]) -> None:
    assert stagecoach(*arguments).exit_code == 2


def test_help_and_documentation_name_every_exit_code_and_command(stagecoach: Run) -> None:
    told = " ".join(stagecoach("--help").stdout.split())
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    for code in re.findall(r"\d+", EXIT_CODES):
        assert re.search(rf"^\| {code} \|", page, re.MULTILINE), code
        assert re.search(rf"\b{code}\b", told), code
    for command in (
        "login",
        "logout",
        "cp",
        "ls",
        "transfers list",
        "transfers show",
        "transfers watch",
        "transfers cancel",
        "transfers resume",
        "transfers retry",
        "transfers stop",
        "nodes list",
        "nodes register",
        "nodes show",
        "nodes rename",
        "nodes revoke",
        "nodes commands",
        "nodes check",
        "nodes grants list",
        "nodes grants add",
        "nodes grants revoke",
        "nodes invite",
        "invitations redeem",
    ):
        assert f"`stagecoach {command}" in page


def test_words() -> None:
    assert as_remote("alps:/a b\nc") == Remote("alps", "/a b\nc")
    assert as_remote("./alps:/x") is None
    assert as_remote("node:lab one:/a:/b") == Remote("node:lab one", "/a:/b")
    assert as_remote("node:/a") == Remote("node", "/a")
    assert as_remote("node:a\x1bb:/a") is None
    assert as_remote("node:archive:a") is None
    assert as_remote("C:relative") is None
    assert plain("é\x1b\udc80\n") == "é\\x1b\\xdc80\\x0a"
    assert [size(n) for n in (0, 1023, 1536, 5 * 1024**4)] == ["0 B", "1023 B", "1.5 KiB", "5.00 TiB"]
