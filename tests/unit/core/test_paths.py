"""A path is data: any POSIX name passes unchanged, and nothing leads out of the roots."""

from __future__ import annotations

import pytest

from stagecoach.core.errors import PathRefused
from stagecoach.core.paths import checked_file_path, checked_path, expanded_roots, is_inside

ROOTS = ("/home/alice", "/scratch")


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "two words",
        "it's",
        'say "hi"',
        "$(touch pwned)",
        "`id`",
        "a\nb",
        "end\n",
        "tab\t",
        "-rf",
        "--",
        "é",
        "e\u0301",
        "x" * 255,
        "é" * 127,
        "*",
        "a;b",
        "a&b<c>",
        "\\",
        "...",
        "..a",
        "a..",
        ".hidden",
        "\x7f",
        "\u2028",
        "{user}",
        "%2e%2e",
    ],
)
def test_any_posix_name_passes_unchanged(name: str) -> None:
    assert checked_file_path(f"/home/alice/{name}", ROOTS) == f"/home/alice/{name}"
    assert checked_file_path(f"/home/alice/{name}/file", ROOTS) == f"/home/alice/{name}/file"


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("", "empty"),
        ("file", "relative"),
        ("./file", "relative"),
        ("~/file", "relative"),
        (" /home/alice/file", "relative"),
        ("home/alice/file", "relative"),
        ("/home/alice/..", "'..'"),
        ("/home/alice/../bob/file", "'..'"),
        ("/home/alice/x/../file", "'..'"),
        ("/..", "'..'"),
        ("/home/alice/a\0b", "NUL"),
        ("\0", "NUL"),
        ("/home/alice/" + "x" * 256, "255"),
        ("/home/alice/" + "é" * 128, "255"),
        ("/home/alice" + "/x" * 2043, "4095"),
        ("/home/alice/\ud800", "Unicode"),
        ("/", "outside"),
        ("/home", "outside"),
        ("/home/alice2/file", "outside"),
        ("/home/alicefile", "outside"),
        ("/home/bob/file", "outside"),
        ("/etc/passwd", "outside"),
        ("/scratch2/file", "outside"),
        ("/HOME/ALICE/file", "outside"),
    ],
)
def test_a_wrong_path_is_refused_in_words(path: str, word: str) -> None:
    for check in (checked_path, checked_file_path):
        with pytest.raises(PathRefused) as refused:
            check(path, ROOTS)
        if not (check is checked_file_path and path.endswith("/")):
            assert word in refused.value.message


def test_the_refusal_names_the_roots() -> None:
    with pytest.raises(PathRefused) as refused:
        checked_path("/etc/passwd", ROOTS)
    assert "/home/alice" in refused.value.message
    assert "/scratch" in refused.value.message


@pytest.mark.parametrize(
    "path", ["/home//alice///file", "//home/alice/file", "///home/alice/file", "/home/./alice/./file", "/home/alice/file"]
)
def test_repeated_slashes_and_dots_are_folded(path: str) -> None:
    assert checked_file_path(path, ROOTS) == "/home/alice/file"


@pytest.mark.parametrize(
    "path", ["/home/alice/file/", "/home/alice/file/.", "/home/alice/", "/scratch", "/home/alice", "/scratch//."]
)
def test_a_file_is_not_named_by_a_directory(path: str) -> None:
    with pytest.raises(PathRefused):
        checked_file_path(path, ROOTS)


def test_a_directory_may_end_with_a_slash() -> None:
    assert checked_path("/home/alice/data/", ROOTS) == "/home/alice/data"
    assert checked_path("/scratch/", ROOTS) == "/scratch"


def test_a_path_of_4095_bytes_passes_and_one_more_does_not() -> None:
    longest = "/scratch" + "/x" * 2043 + "y"
    assert len(longest) == 4095
    assert checked_path(longest, ROOTS) == longest
    with pytest.raises(PathRefused):
        checked_path(longest + "z", ROOTS)


def test_a_root_that_is_everything_holds_everything() -> None:
    assert checked_path("/etc/passwd", ["/"]) == "/etc/passwd"
    assert is_inside("/", ["/"])


def test_roots_may_be_written_with_slashes_at_the_end() -> None:
    assert is_inside("/home/alice/file", ["/home/alice/"])
    assert not is_inside("/home/alice2/file", ["/home/alice/"])


def test_no_roots_hold_nothing() -> None:
    with pytest.raises(PathRefused):
        checked_path("/home/alice/file", [])


def test_roots_are_filled_in_for_a_user() -> None:
    assert expanded_roots(["/home/{user}", "/scratch", "/p/{user}/d"], "alice") == ("/home/alice", "/scratch", "/p/alice/d")


@pytest.mark.parametrize("username", ["..", ".", "", "a/b", "/", "../..", "a\0", "alice/../bob"])
def test_a_strange_user_name_never_widens_a_root(username: str) -> None:
    assert expanded_roots(["/home/{user}", "/scratch"], username) == ("/scratch",)


def test_one_users_root_does_not_hold_a_sibling_with_the_same_beginning() -> None:
    roots = expanded_roots(["/home/{user}"], "alice")
    assert is_inside("/home/alice/x", roots)
    assert not is_inside("/home/alice2/x", roots)
    assert not is_inside("/home/alice2", roots)
