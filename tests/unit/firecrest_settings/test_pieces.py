"""Job directives become options of sbatch, and keys of many users one pattern."""

from __future__ import annotations

import pytest

from stagecoach.firecrest_settings.credentials import common_pattern
from stagecoach.firecrest_settings.directives import NoOption, options_of
from stagecoach.firecrest_settings.reading import one_form, printable


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("#SBATCH --nodes=1", ["--nodes=1"]),
        ("#SBATCH --partition xfer", ["--partition=xfer"]),
        ("#SBATCH -p xfer -N1", ["-pxfer", "-N1"]),
        ("-pxfer", ["-pxfer"]),
        ("#SBATCH --exclusive --mem=0  # all of it", ["--exclusive", "--mem=0"]),
        ("#SBATCH --account={account}", ["--account={account}"]),
        ("#SBATCH -A '{account}'", ["-A{account}"]),
        ("#SBATCH", []),
        ("", []),
    ],
)
def test_a_line_becomes_options(line: str, options: list[str]) -> None:
    assert options_of(line) == options


@pytest.mark.parametrize(
    "line",
    [
        "#PBS -l nodes=1",
        "#SBATCHING --x",
        "# a remark",
        "#SBATCH --comment='two words'",
        "#SBATCH --comment='open",
        "xfer",
        "-N1 2",
        "--a=b c",
    ],
)
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(NoOption):
        options_of(line)


@pytest.mark.parametrize(
    ("places", "pattern"),
    [
        ({"alice": "/k/alice.pem", "bob": "/k/bob.pem"}, "/k/{user}.pem"),
        ({"alice": "/home/alice/.ssh/alice", "bob": "/home/bob/.ssh/bob"}, "/home/{user}/.ssh/{user}"),
        ({"k": "/k/k", "bob": "/k/bob"}, "/k/{user}"),
        ({"alice": "/k/alice"}, "/k/{user}"),
        ({"alice": "/k/alice", "bob": "/k/robert"}, None),
        ({"alice": "/k/one"}, None),
        ({"alice": "~/alice"}, None),
        ({}, None),
    ],
)
def test_one_pattern_stands_for_all_users(places: dict[str, str], pattern: str | None) -> None:
    assert common_pattern(places) == pattern
    if pattern is not None:
        assert {name: pattern.replace("{user}", name) for name in places} == places


def test_both_forms_of_a_key_are_one() -> None:
    for camel, snake in (("maxClients", "max_clients"), ("datatransferJobsDirectives", "datatransfer_jobs_directives")):
        assert one_form(camel) == one_form(snake) == snake
    assert one_form("a.b C") == "a.b C"


def test_what_is_told_is_one_line_of_text() -> None:
    assert printable("a\nb\u2028c\x1b[31m\x00") == "a b c�[31m�"
