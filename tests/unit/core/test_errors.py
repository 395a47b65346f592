"""Codes are a promise to programs: they are unique, and none ever changes."""

from __future__ import annotations

import pytest

from stagecoach.core import errors
from stagecoach.core.errors import StagecoachError

FROZEN = {
    "StagecoachError": ("internal_error", False),
    "SettingsError": ("settings_wrong", False),
    "InvalidRequest": ("invalid_request", False),
    "PathRefused": ("path_refused", False),
    "SizeRefused": ("size_refused", False),
    "AccountRequired": ("account_required", False),
    "NoSpace": ("no_space", False),
    "NotAFile": ("not_a_file", False),
    "SubmissionRefused": ("submission_refused", False),
    "NotAuthenticated": ("not_authenticated", False),
    "PermissionRefused": ("permission_denied", False),
    "NotFound": ("not_found", False),
    "SystemNotFound": ("system_not_found", False),
    "TransferNotFound": ("transfer_not_found", False),
    "JobNotFound": ("job_not_found", False),
    "FileMissing": ("file_missing", False),
    "Conflict": ("wrong_state", False),
    "PartsMissing": ("parts_missing", False),
    "StaleVersion": ("stale_version", True),
    "Unavailable": ("unavailable", True),
    "SystemUnavailable": ("system_unavailable", True),
    "SubmissionUncertain": ("submission_uncertain", True),
    "StoreUnavailable": ("store_unavailable", True),
    "BucketMissing": ("bucket_missing", True),
    "DatabaseUnavailable": ("database_unavailable", True),
}
KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, StagecoachError)}


def test_codes_and_retryable_are_frozen() -> None:
    assert {name: (kind.code, kind.retryable) for name, kind in KINDS.items()} == FROZEN


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in KINDS.values()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_failure_is_drawn_in_the_tree_and_has_a_sentence(name: str) -> None:
    assert name in (errors.__doc__ or "")
    assert (KINDS[name].__doc__ or "").strip()


def test_a_failure_carries_its_message_and_its_own_data() -> None:
    data = {"limit": 1}
    error = errors.SizeRefused("Too big.", data=data)
    assert (str(error), error.message, error.data) == ("Too big.", "Too big.", {"limit": 1})
    data["limit"] = 2
    assert error.data == {"limit": 1}
