"""Who is asking, and what that lets them see and do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum


class Scope(StrEnum):
    """What the holder of a credential may do with it. A log-in holds all that its user may; a personal token, some."""

    TRANSFERS_READ = "transfers:read"
    """See transfers, their parts, jobs and events."""
    TRANSFERS_WRITE = "transfers:write"
    """Begin, finish, retry and cancel transfers; get URLs that carry data."""
    FILES_READ = "files:read"
    """Look at directories on the systems, and read small files."""
    FILES_WRITE = "files:write"
    """Make, change and remove files and directories on the systems."""
    JOBS_READ = "jobs:read"
    """See one's jobs and what the systems' schedulers have: nodes, partitions, reservations."""
    JOBS_WRITE = "jobs:write"
    """Submit and cancel jobs, and run commands in them: whoever holds it can do all that its user can do there."""
    NODES_READ = "nodes:read"
    """See one's data transfer nodes, their queues, and what one was granted."""
    NODES_WRITE = "nodes:write"
    """Register, change and revoke nodes, order their queues, allow others to send to them; redeem invitations."""
    TOKENS_MANAGE = "tokens:manage"
    """List and revoke personal tokens."""
    ADMIN = "admin"
    """What administrators may; of use only to those who are one."""


USER_SCOPES = frozenset(Scope) - {Scope.ADMIN}


def scopes_of(*, is_admin: bool) -> frozenset[Scope]:
    """All that a person may do."""
    return USER_SCOPES | {Scope.ADMIN} if is_admin else USER_SCOPES


@dataclass(frozen=True, slots=True)
class Caller:
    """A person whose credential held. ``username`` is the Unix user on the clusters."""

    username: str
    is_admin: bool = False
    token_expires_at: float = field(default=math.inf, compare=False)
    """Epoch seconds: until then the credential is believed without another look at it."""
    credential: Credential | None = field(default=None, compare=False)

    def may_see(self, owner: str) -> bool:
        """Whether this caller may know that something of ``owner`` exists."""
        return self.is_admin or owner == self.username

    def holds(self, scope: Scope) -> bool:
        """Whether the credential does; who came without one (the command line) may all."""
        return self.credential is None or scope in self.credential.scopes


@dataclass(frozen=True, slots=True)
class Credential:
    """What a person came with, and what it lets its holder do.

    ``username`` is None for a local account that no administrator gave a user on the clusters yet: it may see to itself
    and nothing else.
    """

    kind: CredentialKind
    username: str | None
    believed_until: float
    """Epoch seconds: until then it is believed without another look at it."""
    scopes: frozenset[Scope]
    id: str | None = None
    """Of the session or personal token."""
    account_id: str | None = None
    account_name: str | None = None

    @property
    def is_admin(self) -> bool:
        """Whether its holder is an administrator and it may be used as one."""
        return Scope.ADMIN in self.scopes

    def as_caller(self) -> Caller | None:
        """None without a user on the clusters."""
        if self.username is None:
            return None
        return Caller(self.username, self.is_admin, self.believed_until, self)


class CredentialKind(StrEnum):
    """How somebody proved who they are."""

    ISSUED = "issued"
    """A token of an issuer that the settings name."""
    SESSION = "session"
    """A local account's log-in."""
    PERSONAL = "personal"
    """A personal token."""
