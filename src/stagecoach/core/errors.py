"""Every failure that Stagecoach knows, as one tree with stable codes.

    StagecoachError
    ├── SettingsError                 a setting is wrong; the start stops
    ├── InvalidRequest                the caller can mend it
    │   ├── PathRefused               path_refused
    │   ├── SizeRefused               size_refused
    │   ├── AccountRequired           account_required
    │   ├── NoSpace                   no_space
    │   └── NotAFile                  not_a_file
    ├── NotAuthenticated              token missing, expired, of a stranger
    ├── PermissionRefused             the cluster or the rules say no
    ├── NotFound
    │   ├── SystemNotFound / TransferNotFound / JobNotFound / FileMissing
    ├── Conflict                      the state does not allow it
    │   ├── PartsMissing              with the part numbers
    │   └── StaleVersion              somebody else moved the row first (internal)
    └── Unavailable                   trying again can help
        ├── SystemUnavailable         SSH, scheduler
        │   └── SubmissionUncertain   a job may or may not have been created
        ├── StoreUnavailable          S3
        │   └── BucketMissing         the bucket is gone
        └── DatabaseUnavailable       our own memory
    SubmissionRefused is an InvalidRequest: the scheduler's own words say what to change.

A message is fit for a scientist and holds no secret. HTTP numbers live in ``api/problems.py`` alone, exit codes in
the command line.
"""

from __future__ import annotations

from collections.abc import Mapping


class StagecoachError(Exception):
    """Root of the tree. ``code`` is stable, ``message`` is shown to users, ``retryable`` says whether waiting helps."""

    code = "internal_error"
    retryable = False

    def __init__(self, message: str, *, data: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = dict(data or {})


class SettingsError(StagecoachError):
    """A setting is missing or wrong; the message names it."""

    code = "settings_wrong"


class InvalidRequest(StagecoachError):
    """The request cannot be served as it is; the message says what to change. Nothing was made."""

    code = "invalid_request"


class PathRefused(InvalidRequest):
    """The path is relative, has ``..`` or NUL, is too long, or is outside the system's file systems."""

    code = "path_refused"


class SizeRefused(InvalidRequest):
    """The size is absurd or beyond a limit; the message names the limit."""

    code = "size_refused"


class AccountRequired(InvalidRequest):
    """The system's directives need an account and none was given."""

    code = "account_required"


class NoSpace(InvalidRequest):
    """The file does not fit where it should go."""

    code = "no_space"


class NotAFile(InvalidRequest):
    """The path names a directory or something else that is not a regular file."""

    code = "not_a_file"


class SubmissionRefused(InvalidRequest):
    """The scheduler refused the job; its own words are in the message."""

    code = "submission_refused"


class NotAuthenticated(StagecoachError):
    """No token, or one that does not hold."""

    code = "not_authenticated"


class PermissionRefused(StagecoachError):
    """The user may not do this here."""

    code = "permission_denied"


class NotFound(StagecoachError):
    """It does not exist, or is not the caller's."""

    code = "not_found"


class SystemNotFound(NotFound):
    """No system of this name is configured."""

    code = "system_not_found"


class TransferNotFound(NotFound):
    """No such transfer, or it belongs to somebody else."""

    code = "transfer_not_found"


class JobNotFound(NotFound):
    """No such job, or it belongs to somebody else."""

    code = "job_not_found"


class FileMissing(NotFound):
    """No such file or directory on the system."""

    code = "file_missing"


class Conflict(StagecoachError):
    """The transfer's state does not allow it."""

    code = "wrong_state"


class PartsMissing(Conflict):
    """The upload cannot be finished yet; ``data['missing']`` lists part numbers."""

    code = "parts_missing"


class StaleVersion(Conflict):
    """The row was changed by somebody else since it was read; read again and decide again."""

    code = "stale_version"
    retryable = True


class Unavailable(StagecoachError):
    """Something Stagecoach depends on does not answer; nothing is lost and trying later can help."""

    code = "unavailable"
    retryable = True


class SystemUnavailable(Unavailable):
    """The cluster's SSH server or scheduler does not answer."""

    code = "system_unavailable"


class SubmissionUncertain(SystemUnavailable):
    """The answer to a submission was lost: look for the job by its name before submitting again."""

    code = "submission_uncertain"


class StoreUnavailable(Unavailable):
    """The S3 store does not answer or answers with errors of its own."""

    code = "store_unavailable"


class BucketMissing(StoreUnavailable):
    """The bucket does not exist (any more)."""

    code = "bucket_missing"


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""

    code = "database_unavailable"
