"""What is sealed opens with its key alone, and tells nothing without it."""

from __future__ import annotations

from stagecoach.database.sealing import AccessKey, Sealing

KEY = AccessKey("an-id", "a-very-secret-value")


def test_it_opens_with_its_key_alone() -> None:
    sealed = Sealing("k" * 32).seal(KEY)
    assert Sealing("k" * 32).unseal(sealed) == KEY
    assert Sealing("l" * 32).unseal(sealed) is None
    assert Sealing("k" * 32).unseal(sealed[:-1]) is None
    assert b"very-secret" not in sealed
    assert Sealing("k" * 32).seal(KEY) != sealed
    assert "very-secret" not in repr(KEY)
