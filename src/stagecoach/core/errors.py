"""Every failure that Stagecoach knows, as one tree with stable codes.

    StagecoachError
    ├── SettingsError                 a setting is wrong; the start stops
    ├── InvalidRequest                the caller can mend it
    │   ├── PathRefused / SizeRefused / DigestRefused   path_refused, size_refused, digest_refused
    │   ├── AccountRequired / NoSpace account_required, no_space
    │   ├── ListingTooLarge           listing_too_large
    │   ├── NotAFile / NotADirectory  not_a_file, not_a_directory
    │   ├── TargetExists              target_exists
    │   ├── FileExists                file_exists: said of the small file operations
    │   ├── FileTooLarge              file_too_large: for one direct answer or request
    │   ├── OperationTooLong          operation_too_long: for one request; a job can do it
    │   ├── CommandFailed             command_failed: the system's own words say why
    │   ├── WebhookRefused            webhook_refused
    │   ├── PasswordRefused           password_refused: a new one that is too short or too easy
    │   ├── SettingRefused            setting_refused
    │   ├── NodeUnsupported           node_unsupported: clusters do it, nodes do not
    │   └── KeyReused                 idempotency_key_reused
    ├── NotAuthenticated              token missing, expired, of a stranger
    ├── PermissionRefused             the cluster or the rules say no
    ├── TooManyRequests               too_many_requests: a bound in time; waiting helps
    │   └── TooManyTransfers          too_many_transfers: a bound in number
    ├── NotFound
    │   ├── SystemNotFound / TransferNotFound / JobNotFound / FileMissing
    │   └── TokenNotFound / AccountNotFound / NodeNotFound
    ├── Conflict                      the state does not allow it
    │   ├── PartsMissing / PartsDiffer   with the part numbers
    │   ├── QuotaReached              quota_reached: of bytes in the staging area
    │   ├── NameTaken                 name_taken: an account or a node has it
    │   ├── TooManyTokens             too_many_tokens: as many as one user may have
    │   ├── LimitReached              limit_reached: of nodes, grants, commands
    │   ├── GrantExceeded             grant_exceeded: more bytes than the grant to send has left
    │   ├── RoadClosed                road_closed: from node to node there is no direct road, and nothing else is wanted
    │   ├── InstanceDiffers           instance_differs: a node's credential on a second machine
    │   ├── StaleVersion              somebody else moved the row first (internal)
    │   └── RequestUnderWay           the same request is still being answered
    └── Unavailable                   trying again can help
        ├── SystemDisabled            system_disabled: an administrator closed it for new transfers
        ├── SystemUnavailable         SSH, scheduler
        │   └── SubmissionUncertain   a job may or may not have been created
        ├── StoreUnavailable          S3
        │   └── BucketMissing         the bucket is gone
        ├── RcloneUnavailable         rclone_unavailable: of an agent's own rclone
        ├── StagingFull               staging_full: all users' data together fill the staging area
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


class DigestRefused(InvalidRequest):
    """What the client says of its file cannot be true of it: a value for each part is missing, or two contradict."""

    code = "digest_refused"


class AccountRequired(InvalidRequest):
    """The system's directives need an account and none was given."""

    code = "account_required"


class NoSpace(InvalidRequest):
    """The file does not fit where it should go."""

    code = "no_space"


class ListingTooLarge(InvalidRequest):
    """A directory holds more than one answer may; part of it is never shown as if it were all."""

    code = "listing_too_large"


class NotAFile(InvalidRequest):
    """The path names a directory or something else that is not a regular file."""

    code = "not_a_file"


class NotADirectory(InvalidRequest):
    """The path names a file or something else that is not a directory."""

    code = "not_a_directory"


class TargetExists(InvalidRequest):
    """Something stands already where a new directory should go."""

    code = "target_exists"


class FileExists(InvalidRequest):
    """Something stands already where a file operation should make something."""

    code = "file_exists"


class FileTooLarge(InvalidRequest):
    """More bytes than one direct request or answer carries; a transfer carries them. ``data`` has the limit."""

    code = "file_too_large"


class OperationTooLong(InvalidRequest):
    """It did not end within what one request may take; a job on the system can take longer."""

    code = "operation_too_long"


class CommandFailed(InvalidRequest):
    """A command that ran for the user on the system ended with another exit code than 0; its own words are in the message."""

    code = "command_failed"

    @staticmethod
    def words(exit_status: int, said: str) -> str:
        """What FirecREST says of it, which its clients read; ``said`` is what the command printed, on one line."""
        return f"Remote process failed with exit status:{exit_status} and error message:{said or 'none'}"


class SettingRefused(InvalidRequest):
    """The setting may not be changed while the service runs, or not to this value."""

    code = "setting_refused"


class WebhookRefused(InvalidRequest):
    """The webhook's URL is none that this service would post to; the message says why and repeats none of it."""

    code = "webhook_refused"


class NodeUnsupported(InvalidRequest):
    """A data transfer node does not do what clusters do: it has no users, no jobs of theirs and no listings."""

    code = "node_unsupported"


class PasswordRefused(InvalidRequest):
    """A new password is too short, too long or too easy to guess; the message repeats none of it."""

    code = "password_refused"


class KeyReused(InvalidRequest):
    """The idempotency key came before, with another request."""

    code = "idempotency_key_reused"


class SubmissionRefused(InvalidRequest):
    """The scheduler refused the job; its own words are in the message."""

    code = "submission_refused"


class NotAuthenticated(StagecoachError):
    """No token, or one that does not hold."""

    code = "not_authenticated"


class PermissionRefused(StagecoachError):
    """The user may not do this here."""

    code = "permission_denied"


class TooManyRequests(StagecoachError):
    """The caller asks more often than the service answers; ``data['retry_after_seconds']`` says when it does again."""

    code = "too_many_requests"
    retryable = True


class TooManyTransfers(TooManyRequests):
    """As many transfers are under way as may be; nothing was made. ``data`` has the limit and how many there are."""

    code = "too_many_transfers"


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


class TokenNotFound(NotFound):
    """No such personal token, or it belongs to somebody else."""

    code = "token_not_found"


class AccountNotFound(NotFound):
    """No such local account."""

    code = "account_not_found"


class NodeNotFound(NotFound):
    """No such node, command or grant, or none that the caller may know of."""

    code = "node_not_found"


class Conflict(StagecoachError):
    """The transfer's state does not allow it."""

    code = "wrong_state"


class PartsMissing(Conflict):
    """The upload cannot be finished yet; ``data['missing']`` lists part numbers."""

    code = "parts_missing"


class PartsDiffer(Conflict):
    """Parts in the store are not what the client says they are; ``data['differing']`` lists part numbers."""

    code = "parts_differ"


class QuotaReached(Conflict):
    """The caller's data fills his part of the staging area; nothing was made. ``data`` has the limit and what is used."""

    code = "quota_reached"


class NameTaken(Conflict):
    """Another local account, or another node of the same owner, has this name."""

    code = "name_taken"


class TooManyTokens(Conflict):
    """The user has as many personal tokens as one may; nothing was made."""

    code = "too_many_tokens"


class LimitReached(Conflict):
    """There are as many as there may be; nothing was made. ``data['limit']``."""

    code = "limit_reached"


class GrantExceeded(Conflict):
    """The grant to send to a node has fewer bytes left; nothing was made. ``data`` has the limit and what is used."""

    code = "grant_exceeded"


class RoadClosed(Conflict):
    """A transfer that shall go straight from node to node cannot; nothing was made. The message says what is missing."""

    code = "road_closed"


class InstanceDiffers(Conflict):
    """Another agent than the one that enrolled holds this node's credential."""

    code = "instance_differs"


class StaleVersion(Conflict):
    """The row was changed by somebody else since it was read; read again and decide again."""

    code = "stale_version"
    retryable = True


class RequestUnderWay(Conflict):
    """A request with this idempotency key is being carried out; asking again in a moment tells what came of it."""

    code = "request_under_way"
    retryable = True


class Unavailable(StagecoachError):
    """Something Stagecoach depends on does not answer; nothing is lost and trying later can help."""

    code = "unavailable"
    retryable = True


class SystemDisabled(Unavailable):
    """An administrator closed the system for new transfers; those that are open go on. ``data['reason']`` is theirs."""

    code = "system_disabled"


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


class StagingFull(Unavailable):
    """The data of all users together fills the staging area; nothing was made, and later there will be room."""

    code = "staging_full"


class RcloneUnavailable(Unavailable):
    """The rclone that an agent runs for direct transfers did not start, ended, or does not answer."""

    code = "rclone_unavailable"


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""

    code = "database_unavailable"
