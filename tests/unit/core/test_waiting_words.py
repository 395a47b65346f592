"""Why a job waits, in words for people."""

from __future__ import annotations

import pytest

from stagecoach.core.waiting_words import why_it_waits


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("PartitionDown", "partition is closed"),
        ("PartitionTimeLimit", "more time than its partition allows"),
        ("AssocGrpCPUMinutesLimit", "a limit of your project"),
        ("QOSMaxJobsPerUserLimit", "a limit of your project"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "maintenance"),
        ("(Nodes required for job are DOWN, DRAINED or reserved", "nodes it could use are down"),
        ("JobHeldAdmin", "an administrator holds it"),
        ("InvalidAccount", "another account"),
    ],
)
def test_the_word_is_explained_and_named(word: str, said: str) -> None:
    sentence = why_it_waits(word)
    assert sentence is not None
    assert said in sentence
    assert sentence.endswith(").")


@pytest.mark.parametrize("word", [None, "", "None", "Priority", "Resources", "Dependency", "SomethingNew"])
def test_what_needs_no_words_or_is_not_known_gets_none(word: str | None) -> None:
    assert why_it_waits(word) is None
