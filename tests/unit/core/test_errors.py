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
    "DigestRefused": ("digest_refused", False),
    "AccountRequired": ("account_required", False),
    "NoSpace": ("no_space", False),
    "ListingTooLarge": ("listing_too_large", False),
    "NotAFile": ("not_a_file", False),
    "NotADirectory": ("not_a_directory", False),
    "TargetExists": ("target_exists", False),
    "FileExists": ("file_exists", False),
    "FileTooLarge": ("file_too_large", False),
    "OperationTooLong": ("operation_too_long", False),
    "CommandFailed": ("command_failed", False),
    "WebhookRefused": ("webhook_refused", False),
    "SettingRefused": ("setting_refused", False),
    "SystemDisabled": ("system_disabled", True),
    "PasswordRefused": ("password_refused", False),
    "TokenNotFound": ("token_not_found", False),
    "NodeNotFound": ("node_not_found", False),
    "NodeUnsupported": ("node_unsupported", False),
    "LimitReached": ("limit_reached", False),
    "GrantExceeded": ("grant_exceeded", False),
    "RoadClosed": ("road_closed", False),
    "InstanceDiffers": ("instance_differs", False),
    "AccountNotFound": ("account_not_found", False),
    "NameTaken": ("name_taken", False),
    "TooManyTokens": ("too_many_tokens", False),
    "KeyReused": ("idempotency_key_reused", False),
    "SubmissionRefused": ("submission_refused", False),
    "NotAuthenticated": ("not_authenticated", False),
    "PermissionRefused": ("permission_denied", False),
    "TooManyRequests": ("too_many_requests", True),
    "TooManyTransfers": ("too_many_transfers", True),
    "NotFound": ("not_found", False),
    "SystemNotFound": ("system_not_found", False),
    "TransferNotFound": ("transfer_not_found", False),
    "JobNotFound": ("job_not_found", False),
    "FileMissing": ("file_missing", False),
    "Conflict": ("wrong_state", False),
    "PartsMissing": ("parts_missing", False),
    "PartsDiffer": ("parts_differ", False),
    "QuotaReached": ("quota_reached", False),
    "StaleVersion": ("stale_version", True),
    "RequestUnderWay": ("request_under_way", True),
    "Unavailable": ("unavailable", True),
    "SystemUnavailable": ("system_unavailable", True),
    "SubmissionUncertain": ("submission_uncertain", True),
    "StoreUnavailable": ("store_unavailable", True),
    "BucketMissing": ("bucket_missing", True),
    "StagingFull": ("staging_full", True),
    "DatabaseUnavailable": ("database_unavailable", True),
    "RcloneUnavailable": ("rclone_unavailable", True),
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
