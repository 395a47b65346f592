"""What is sent is counted, and what would stay behind without a word is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stagecoach.agent.source_survey import survey_source
from stagecoach.core.errors import FileMissing, NotAFile


def test_trap_12_each_kind_that_stays_behind_is_named(tmp_path: Path) -> None:
    (tmp_path / "sub" / "empty").mkdir(parents=True)
    (tmp_path / "sub" / "data").write_bytes(b"12345")
    (tmp_path / "tool").write_bytes(b"1")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "up").symlink_to("..")
    (tmp_path / ".rclone_temp_put_1").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    survey = survey_source(tmp_path)
    assert (survey.files, survey.size_bytes, survey.largest_bytes, survey.one_file) == (3, 6, 5, False)
    assert {notice.kind: notice.examples for notice in survey.notices} == {
        "empty_directory": ("sub/empty",),
        "executable": ("tool",),
        "link": ("up",),
        "reserved_name": (".rclone_temp_put_1",),
        "special": ("pipe",),
    }
    assert all(notice.words.endswith(".") and notice.examples[0] in notice.words for notice in survey.notices)


def test_many_of_a_kind_are_counted_and_some_are_named(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").symlink_to("nowhere")
    [notice] = survey_source(tmp_path).notices
    assert notice.count == 20
    assert len(notice.examples) == 5
    assert "20" in notice.words
    assert notice.words.endswith("….")


def test_an_empty_source_is_no_empty_directory_below_it(tmp_path: Path) -> None:
    assert survey_source(tmp_path).notices == ()


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    survey = survey_source(tmp_path / "a")
    assert (survey.files, survey.size_bytes, survey.one_file, survey.notices) == (1, 3, True, ())


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(NotAFile):
            survey_source(tmp_path / name)
    with pytest.raises(FileMissing):
        survey_source(tmp_path / "missing")


@pytest.mark.parametrize("name", [b"new\nline", b"not utf-8 \xff", b"tab\t", b"del\x7f", "␁".encode(), "‛x".encode()])
def test_names_that_would_arrive_as_others_are_named(tmp_path: Path, name: bytes) -> None:
    for directory in (b"files", b"directories/" + name):
        os.makedirs(os.path.join(os.fsencode(tmp_path), directory))
    with open(os.path.join(os.fsencode(tmp_path), b"files", name), "wb"):
        pass
    for top in ("files", "directories"):
        assert "name_not_carried" in {notice.kind for notice in survey_source(tmp_path / top).notices}


def test_a_change_of_any_file_is_seen(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"1")
    before = survey_source(tmp_path).fingerprint
    assert survey_source(tmp_path).fingerprint == before
    os.utime(tmp_path / "b", (1, 1))
    after = survey_source(tmp_path).fingerprint
    assert after != before
    (tmp_path / "b").rename(tmp_path / "c")
    assert survey_source(tmp_path).fingerprint not in {before, after}
