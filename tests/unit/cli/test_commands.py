"""Every command, its answers for people and for programs, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from tests.unit.cli.conftest import Run
from tests.unit.client.fake_service import ID, TOKEN, URL, FakeService, problem
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


@pytest.mark.parametrize("places", [("a", "b"), ("x:/a", "y:/b"), ("x:/", "b"), ("x:/a/", "b")])
def test_cp_wants_one_place_here_and_one_there(stagecoach: Run, service: FakeService, places: tuple[str, str]) -> None:
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
    assert len(service.asked) == 1


@pytest.mark.parametrize("arguments", [["login", "ftp://x"], ["transfers", "list", "--limit", "0"], ["nonsense"]])
def test_wrong_usage(stagecoach: Run, arguments: list[str]) -> None:
    assert stagecoach(*arguments).exit_code == 2


def test_help_and_documentation_name_every_exit_code_and_command(stagecoach: Run) -> None:
    told = " ".join(stagecoach("--help").stdout.split())
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    for code in re.findall(r"\d+", EXIT_CODES):
        assert re.search(rf"^\| {code} \|", page, re.MULTILINE), code
        assert re.search(rf"\b{code}\b", told), code
    for command in ("login", "cp", "transfers list", "transfers show", "transfers watch", "transfers cancel", "transfers resume"):
        assert f"`stagecoach {command}" in page


def test_words() -> None:
    assert as_remote("alps:/a b\nc") == Remote("alps", "/a b\nc")
    assert as_remote("./alps:/x") is None
    assert as_remote("C:relative") is None
    assert plain("é\x1b\udc80\n") == "é\\x1b\\xdc80\\x0a"
    assert [size(n) for n in (0, 1023, 1536, 5 * 1024**4)] == ["0 B", "1023 B", "1.5 KiB", "5.00 TiB"]
