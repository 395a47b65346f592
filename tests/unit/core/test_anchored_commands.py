"""Scripts that act in a directory only while it is the one that was decided upon; run here, with names made to confuse them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stagecoach.core import anchored_commands as anchors
from stagecoach.core import file_commands as commands

ODD = "it's $(x) `y`\n"
HIDDEN, NAMES = "it's hidden", "$(names)"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """With an odd name that ends in a newline."""
    path = Path(os.path.realpath(tmp_path)) / ODD
    path.mkdir()
    return path


def test_words_run_in_the_directory_itself(top: Path) -> None:
    words = anchors.anchored(str(top), ["sh", "-c", 'pwd -P; printf "%s," "$@"', "sh", "-n", "a b", "$HOME"])
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == f"{top}\n-n,a b,$HOME,"


def test_words_do_not_run_where_the_path_leads_elsewhere(top: Path) -> None:
    (top / "real").mkdir()
    (top / "link").symlink_to("real")
    for path in (f"{top}/link", f"{top}/real/", f"{top}/real/../real", str(top).rstrip()):
        ran = subprocess.run(anchors.anchored(path, ["touch", "made"]), check=False, capture_output=True, text=True)
        assert ran.returncode != 0
    assert (
        anchors.REPLACED
        in subprocess.run(anchors.anchored(f"{top}/link", ["touch", "made"]), check=False, capture_output=True, text=True).stderr
    )
    assert list(top.rglob("made")) == []


WRITE = ("sh", "-c", "printf new; {}")


@pytest.mark.parametrize(
    ("ending", "status", "content"), [("exit 0", 0, "new"), ("exit 2", 2, "old"), ("kill -9 $$", 137, "old")]
)
def test_what_a_command_prints_takes_its_place_or_is_gone(top: Path, ending: str, status: int, content: str) -> None:
    (top / "-rf\n").write_text("old")
    (top / NAMES).write_text("names")
    words = anchors.whole_or_not([*WRITE[:2], WRITE[2].format(ending)], f"{top}/-rf\n", HIDDEN, NAMES)
    assert subprocess.run(words, check=False).returncode == status
    assert (top / "-rf\n").read_text() == content
    assert os.listdir(top) == ["-rf\n"]


def test_a_command_reads_the_names_that_are_there(top: Path) -> None:
    (top / NAMES).write_text("the names")
    subprocess.run(anchors.whole_or_not(["cat"], f"{top}/path", HIDDEN, NAMES), check=True)
    assert (top / "path").read_text() == "the names"
    assert os.listdir(top) == ["path"]


@pytest.mark.parametrize("is_unpacking", [False, True])
def test_what_was_ended_leaves_nothing_of_what_it_wrote(top: Path, is_unpacking: bool) -> None:
    (top / "archive").touch()
    writing = [*WRITE[:2], WRITE[2].format("exec sleep 60")]
    if is_unpacking:
        words = anchors.extract(writing, f"{top}/archive", str(top), HIDDEN)
    else:
        words = anchors.whole_or_not(writing, f"{top}/path", HIDDEN, NAMES)
    assert subprocess.run(commands.bounded(words, 1), check=False).returncode == commands.TIMED_OUT
    assert os.listdir(top) == ["archive"]


def test_scripts_pass_through_the_quotes_of_any_login_shell() -> None:
    for words in (
        anchors.remove("/d/f"),
        anchors.whole_or_not(["x"], "/d/f", HIDDEN, NAMES),
        anchors.extract(["x"], "/d/f", "/d", HIDDEN),
        anchors.links_below("/d", "./f"),
    ):
        assert not [word for word in words if "\n" in word or "!" in word]
