"""What is made of rclone's numbers and sentences, and what may be asked of it at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stagecoach.agent.rclone_calls import Destination, Limits, comparison, directory_copy, file_copy, parts_copy, settings_for
from stagecoach.agent.rclone_gate import require_allowed, secrets_in
from stagecoach.agent.rclone_progress import Progress, movement_of, progress_of
from stagecoach.agent.rclone_words import meaning_of
from stagecoach.core.errors import PathRefused, PermissionRefused

TO = Destination("https://host.example:8443", "SCKEY", "the secret", Path("/state/there.pem"), folder="run/1")


def progress(**changed: int) -> Progress:
    return Progress("running", **{"bytes_done": 0, "bytes_total": 1000, "files_done": 0, "files_total": 4, **changed})


def test_trap_4_more_bytes_than_there_are_is_never_told() -> None:
    now = progress_of({"bytes": 1700, "transfers": 9, "checks": 4, "speed": 3.5, "errors": 2}, progress(), attempt=2)
    assert (now.bytes_done, now.files_done, now.percent, now.attempt, now.errors) == (1000, 4, 99, 2, 2)


def test_trap_4_a_new_attempt_does_not_go_backwards() -> None:
    now = progress_of({"bytes": 10, "transfers": 0}, progress(bytes_done=600, files_done=2), attempt=2)
    assert (now.bytes_done, now.files_done, now.percent) == (600, 2, 60)


@pytest.mark.parametrize("state", ["running", "failed", "stopped"])
def test_trap_4_only_what_is_done_is_whole(state: str) -> None:
    assert Progress(state, 1000, 1000, 4, 4).percent == 99  # type: ignore[arg-type]
    assert Progress(state, 0, 0, 0, 0).percent == 0  # type: ignore[arg-type]
    assert Progress("done", 0, 0, 0, 0).percent == 100


@pytest.mark.parametrize("odd", [None, "x", -5, [], {}])
def test_odd_numbers_are_nothing(odd: object) -> None:
    now = progress_of({"bytes": odd, "transfers": odd, "transferring": None, "speed": None}, progress(), attempt=1)
    assert (now.bytes_done, now.files_done, now.current_file) == (0, 0, None)


def test_the_current_file_is_one_of_those_under_way() -> None:
    assert progress_of({"transferring": [{"name": "a/b"}, {"name": "c"}]}, progress(), attempt=1).current_file == "a/b"


def test_movement_is_any_number_that_changes() -> None:
    still = {"bytes": 5, "checks": 1, "elapsedTime": 1.0}
    assert movement_of(still) == movement_of({**still, "elapsedTime": 9.0})
    assert all(movement_of(still) != movement_of({**still, name: 7}) for name in ("bytes", "checks", "transfers", "listed"))


@pytest.mark.parametrize(
    ("sentence", "code", "retryable"),
    [
        ("dial tcp 127.0.0.1:7901: connect: connection refused", "port_closed", True),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "certificate_wrong", False),
        ("https response error StatusCode: 403, RequestID: , api error AccessDenied: Access Denied", "key_refused", False),
        ("dial tcp: lookup x.invalid: no such host", "dns_failed", True),
        ("write /data/x: no space left on device", "no_space", False),
        ("can't copy - source file is being updated (size changed from 5 to 3000000)", "source_changed", False),
        ("object not found", "source_missing", False),
        ("read tcp 10.0.0.1:1->10.0.0.2:2: i/o timeout", "receiver_silent", True),
        ("api error NoSuchUpload: The specified multipart upload does not exist", "receiver_interrupted", True),
        ("https response error StatusCode: 500, RequestID: , api error InternalError: Internal Error", "receiver_failed", True),
        ("something that nobody has seen before", "direct_failed", True),
    ],
)
def test_a_sentence_has_a_cause_and_says_whether_trying_again_helps(sentence: str, code: str, retryable: bool) -> None:
    trouble = meaning_of(sentence)
    assert (trouble.code, trouble.retryable) == (code, retryable)
    assert sentence in trouble.message


def test_what_the_jobs_ask_passes_the_gate(tmp_path: Path) -> None:
    config = settings_for(TO, Limits(rate_bytes_per_second=1000), largest_bytes=10, one_file=False)
    for method, parameters in (
        file_copy(tmp_path / "a", TO, "b", config),
        directory_copy(tmp_path, TO, config),
        comparison(tmp_path, TO, config, name="a"),
        comparison(tmp_path, TO, config, name=None),
    ):
        require_allowed(method, parameters, [tmp_path])
        assert list(secrets_in(parameters)) == ["the secret"]


SERVED = "http://127.0.0.1:4711/a-secret/"


def test_parts_are_read_from_our_own_server_and_from_no_other(tmp_path: Path) -> None:
    limits = Limits(rate_bytes_per_second=1000)
    method, parameters = parts_copy(SERVED, TO, limits, part_size_bytes=2**30)
    require_allowed(method, parameters, [], {SERVED})
    assert parameters["dstFs"]["_root"] == "data/run/1/.stagecoach-parts/"
    assert "BwLimitFile" not in parameters["_config"]
    assert list(secrets_in(parameters)) == ["the secret"]
    with pytest.raises(PermissionRefused):
        require_allowed(method, parameters, [tmp_path])
    for change in (
        {"url": "http://127.0.0.1:4711/another/"},
        {"url": f"{SERVED}below/"},
        {"url": "http://169.254.169.254/"},
        {"headers": "a,b"},
        {"_root": "../"},
    ):
        with pytest.raises(PermissionRefused):
            require_allowed(method, {**parameters, "srcFs": {**parameters["srcFs"], **change}}, [tmp_path], {SERVED})
    with pytest.raises(PermissionRefused):
        require_allowed("sync/copy", {"srcFs": str(tmp_path), "dstFs": parameters["srcFs"]}, [tmp_path], {SERVED})


@pytest.mark.parametrize("ask", [directory_copy, comparison])
def test_large_files_can_be_left_out(tmp_path: Path, ask: Any) -> None:
    more = {"name": None} if ask is comparison else {}
    _, parameters = ask(tmp_path, TO, {}, least_large_bytes=2**27, **more)
    require_allowed("sync/copy", parameters, [tmp_path])
    assert parameters["_filter"] == {"MaxSize": "134217727B"}


def test_trap_2_the_place_to_write_to_ends_in_a_slash() -> None:
    assert TO.remote()["_root"] == "data/run/1/"


@pytest.mark.parametrize(
    ("largest_bytes", "one_file", "at_once", "rate"),
    [(16 * 2**20, False, 16, "250B"), (2**30, False, 4, "1000B"), (2**40, True, 1, "4000B"), (0, True, 1, "4000B")],
)
def test_files_at_once_share_the_rate(largest_bytes: int, one_file: bool, at_once: int, rate: str) -> None:
    config = settings_for(TO, Limits(rate_bytes_per_second=4000), largest_bytes=largest_bytes, one_file=one_file)
    assert (config["Transfers"], config["BwLimitFile"]) == (at_once, rate)
    assert "BwLimitFile" not in settings_for(TO, Limits(), largest_bytes=largest_bytes, one_file=one_file)


def test_patience_grows_with_the_file_that_the_receiver_reads_again() -> None:
    assert Limits().patience_for(0) == 60
    assert Limits().patience_for(10**12) == 60 + 10_000
    assert Limits(patience_seconds=5).patience_for(10**12) == 5


@pytest.mark.parametrize("name", ["a*b", "[x]", "{a,b}", "back\\slash", "what?"])
def test_one_file_is_compared_by_its_name_and_not_by_a_pattern(name: str) -> None:
    [rule] = comparison(Path("/a"), TO, {}, name=name)[1]["_filter"]["IncludeRule"]
    assert rule.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == f"/{name}"
    assert rule.count("\\") == sum(sign in "*?[]{}\\" for sign in name) + name.count("\\")


@pytest.mark.parametrize(
    "parameters",
    [
        {"srcFs": "/etc"},
        {"srcFs": "relative"},
        {"srcFs": ":sftp,host=x:/"},
        {"dstFs": 7},
        {"dstRemote": "/absolute"},
        {"dstRemote": "a/../../b"},
        {"dstRemote": ""},
    ],
)
def test_trap_13_no_other_place(parameters: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(PathRefused):
        require_allowed("sync/copy", parameters, [tmp_path])


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("core/command", {}),
        ("sync/sync", {}),
        ("sync/copy", {"_config": {"Links": True}}),
        ("sync/copy", {"_config": "x"}),
        ("sync/copy", {"_filter": {"FilesFrom": ["/etc/passwd"]}}),
        ("sync/copy", {"dstFs": {"type": "sftp"}}),
        ("sync/copy", {"dstFs": {"type": "s3", "endpoint": "http://plain.example"}}),
    ],
)
def test_trap_13_no_other_word(method: str, parameters: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(PermissionRefused):
        require_allowed(method, parameters, [tmp_path])
