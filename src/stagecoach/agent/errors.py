"""Why an agent cannot run, in words for the owner of the node.

StagecoachError
└── AgentError
    ├── NotEnrolled        not_enrolled
    ├── CredentialRefused  credential_refused: revoked, or of another machine
    ├── AlreadyRunning     already_running: another agent has the state directory
    ├── DirectoryRefused   directory_refused
    └── StateUnreadable    state_unreadable
"""

from __future__ import annotations

from stagecoach.core.errors import StagecoachError


class AgentError(StagecoachError):
    """Root of them."""

    code = "agent_error"


class NotEnrolled(AgentError):
    """There is no credential yet."""

    code = "not_enrolled"
    status = 401


class CredentialRefused(AgentError):
    """The service has nothing more to do with this agent."""

    code = "credential_refused"
    status = 401


class AlreadyRunning(AgentError):
    """Two agents would move the same things."""

    code = "already_running"


class DirectoryRefused(AgentError):
    """The send, receive or state directory cannot be what it is meant to be."""

    code = "directory_refused"


class StateUnreadable(AgentError):
    """What an agent wrote is not what is there now."""

    code = "state_unreadable"
