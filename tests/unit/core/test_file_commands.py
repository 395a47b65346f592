"""Commands for files as lists of words, and what their answers mean, start files' noise included."""

from __future__ import annotations

import pytest

from stagecoach.core import file_commands as commands
from stagecoach.core.errors import (
    CommandFailed,
    FileExists,
    FileMissing,
    InvalidRequest,
    NoSpace,
    OperationTooLong,
    PathRefused,
    PermissionRefused,
    StagecoachError,
    SystemUnavailable,
)
from stagecoach.core.file_commands import Compression, FullStatus

DIGEST = "ab" * 32


def test_a_command_ends_itself_and_speaks_english() -> None:
    assert commands.bounded(["x", "y z"], 1.2) == ["env", "LC_ALL=C", "timeout", "--kill-after=5", "2", "x", "y z"]
    assert commands.bounded(["x"], -3)[4] == "1"


def test_a_path_is_one_word_behind_the_options() -> None:
    path = "/home/a b/-rf $(x)\n"
    for words in (commands.sha256sum(path), commands.file_type(path), commands.stat(path, follow_symlinks=True)):
        assert words[-2:] == ["--", path]
    assert commands.chown(path, "a", "") == ["chown", "--no-dereference", "--", "a", path]
    assert commands.chown(path, "", "g") == ["chgrp", "--no-dereference", "--", "g", path]
    assert commands.chown(path, "a", "g") == ["chown", "--no-dereference", "--", "a:g", path]


def test_an_archive_is_printed_and_names_its_content_from_where_it_is_made() -> None:
    begin = ["tar", "--create", "--force-local"]
    words = commands.tar_create("-x", Compression.XZ, dereference=True)
    assert words == [*begin, "-J", "--dereference", "--file", "-", "--", "-x"]
    words = commands.tar_create_of_list(Compression.NONE, dereference=False)
    assert words == [*begin, "--file", "-", "--null", "--no-recursion", "--files-from", "-"]


@pytest.mark.parametrize(
    "printed",
    [f"{DIGEST} */f\n", f"\\{DIGEST} */new\\nline\n", f"Welcome to alps!\n{DIGEST} */f\n", f"{'cd' * 32} no\n{DIGEST} */f\n"],
)
def test_the_digest_is_found_behind_whatever_start_files_print(printed: str) -> None:
    assert commands.digest_in(printed) == DIGEST


@pytest.mark.parametrize("printed", ["", "sha256sum: command not found", f"x{DIGEST} */f", "ab" * 31 + " */f"])
def test_what_is_no_digest_is_none(printed: str) -> None:
    with pytest.raises(SystemUnavailable):
        commands.digest_in(printed)


def test_a_status_is_read_from_its_marked_line() -> None:
    line = f"{commands.STATUS_MARK} 81a4 12 2050 1 1000 1001 5 -7 8 9"
    expected = FullStatus(0o100644, 12, 2050, 1, 1000, 1001, 5, -7, 8, 9)
    assert commands.status_in(f"noise\n{line}\n") == expected
    for printed in ("", "noise", line[:-2], f"{line} 10", f"x{line}"):
        with pytest.raises(SystemUnavailable):
            commands.status_in(printed)


def test_the_last_line_is_the_answer() -> None:
    assert commands.last_line("Welcome\n\nASCII text\n\n") == "ASCII text"
    assert commands.last_line("") == ""


TROUBLES: list[tuple[int, str, type[StagecoachError]]] = [
    (1, "stat: cannot statx '/x': No such file or directory", FileMissing),
    (1, "sha256sum: /x: Permission denied", PermissionRefused),
    (1, "chown: changing ownership of '/x': Operation not permitted", PermissionRefused),
    (1, "chown: invalid user: 'x'", InvalidRequest),
    (1, "rm: skipping './x/y', since it's on a different device", PathRefused),
    (1, "sh: 2: cd: can't cd to /x", PermissionRefused),
    (1, "mkdir: cannot create directory '/x': File exists", FileExists),
    (2, "tar: /x: Wrote only 2048 of 10240 bytes\ntar: Error is not recoverable: No space left on device", NoSpace),
    (2, "tar (child): xz: Cannot exec: No such file or directory", SystemUnavailable),
    (127, "env: 'file': No such file or directory", SystemUnavailable),
    (124, "", OperationTooLong),
    (2, "gzip: stdin: not in gzip format", CommandFailed),
    (-9, "", CommandFailed),
]


@pytest.mark.parametrize(("status", "said", "kind"), TROUBLES, ids=[said[:30] or str(status) for status, said, _ in TROUBLES])
def test_what_a_command_says_is_what_it_means(status: int, said: str, kind: type[StagecoachError]) -> None:
    error = commands.trouble("tar", status, said)
    assert type(error) is kind
    words = " ".join(said.split()) or "tar"
    assert f"Remote process failed with exit status:{status} and error message:{words}" in error.message
    assert "\n" not in error.message


def test_words_of_a_command_are_bounded_and_text() -> None:
    message = commands.trouble("tar", 2, "\udcff" * 100_000).message
    assert len(message.encode()) < 3000
