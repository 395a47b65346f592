"""A line of the audit log: who did what to what, when, from where, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

DONE = "done"
"""The result of what was done; of what was refused or failed, the error's code."""


class Act(StrEnum):
    """What people do. Stable words, for programs that read the log."""

    UPLOAD_BEGUN = "transfer.upload"
    DOWNLOAD_BEGUN = "transfer.download"
    RELAY_BEGUN = "transfer.relay"
    MOVE_BEGUN = "transfer.mv"
    COPY_BEGUN = "transfer.cp"
    REMOVAL_BEGUN = "transfer.rm"
    COMPRESSION_BEGUN = "transfer.compress"
    EXTRACTION_BEGUN = "transfer.extract"
    TRANSFER_FINISHED = "transfer.finish"
    TRANSFER_CANCELLED = "transfer.cancel"
    TRANSFER_RETRIED = "transfer.retry"
    TRANSFER_STOPPED = "transfer.stop"
    TRANSFER_CHANGED = "transfer.change"
    DOWNLOAD_URL_SIGNED = "transfer.download-url"
    FILE_UPLOADED = "file.upload"
    FILE_DOWNLOADED = "file.download"
    FILE_MODE_CHANGED = "file.chmod"
    FILE_OWNER_CHANGED = "file.chown"
    LINK_MADE = "file.symlink"
    DIRECTORY_MADE = "file.mkdir"
    FILE_REMOVED = "file.rm"
    FILES_COMPRESSED = "file.compress"
    FILES_EXTRACTED = "file.extract"
    JOB_SUBMITTED = "job.submit"
    JOB_CANCELLED = "job.cancel"
    JOB_ATTACHED = "job.attach"
    SETTINGS_CHANGED = "settings.change"
    ACCOUNT_MADE = "account.make"
    ACCOUNT_CHANGED = "account.change"
    PASSWORD_CHANGED = "account.password"  # noqa: S105 - the name of an act
    SESSION_BEGUN = "session.begin"
    SESSION_ENDED = "session.end"
    TOKEN_MADE = "token.make"  # noqa: S105
    TOKEN_REVOKED = "token.revoke"  # noqa: S105
    NODE_MADE = "node.make"
    NODE_CHANGED = "node.change"
    NODE_REVOKED = "node.revoke"
    NODE_ENROLMENT_RENEWED = "node.enrolment"
    NODE_ENROLLED = "node.enrol"
    NODE_INSTANCE_REFUSED = "node.instance-refused"
    NODE_CHECK_ASKED = "node.check"
    NODE_SEND_ASKED = "node.send"
    NODE_QUEUE_ORDERED = "node.order"
    NODE_COMMAND_REMOVED = "node.command.remove"
    GRANT_MADE = "grant.make"
    GRANT_REVOKED = "grant.revoke"
    INVITATION_MADE = "invitation.make"
    INVITATION_REDEEMED = "invitation.redeem"
    AUTHENTICATION_REFUSED = "authentication.refused"


@dataclass(frozen=True, slots=True)
class AuditLine:
    """``who`` is None where nobody is known, ``target`` where the act has none. ``what`` is an :class:`Act` or another
    word of the same form. ``number`` is the database's, and grows; 0 before it is written."""

    at: datetime
    who: str | None
    what: str
    target: str | None = None
    result: str = DONE
    address: str | None = None
    request_id: str | None = None
    detail: Mapping[str, object] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Lines from ``since`` on and before ``until``, behind the one numbered ``after``; at most ``limit``."""

    since: datetime | None = None
    until: datetime | None = None
    who: str | None = None
    after: int = 0
    limit: int = 1000
