"""What the agent of a data transfer node and the service say to each other: enrolment, polls, commands, their ends.

Everything is asked by the agent: a node opens no port for this. Both sides ignore keys that they do not know, so either
may be the newer one. Whatever an agent says is bounded: it runs on a stranger's machine.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stagecoach.wire.shapes import Shape

MAX_WAIT_SECONDS = 50
MAX_RUNNING = 1000
MAX_HEALTH_SENTENCES = 20
MAX_RESULT_BYTES = 64 * 1024
MAX_CHECK_BYTES = 16 * 1024
MAX_NOTICES = 20

Id = Annotated[str, Field(pattern="^[0-9a-z]{1,64}$")]
"""Of a node or a command: 26 characters as ids of transfers have; the agent makes names of files from it."""
InstanceId = Annotated[str, Field(pattern="^[0-9a-z]{16,64}$")]
"""Made by the agent when it enrols; another machine that came by the credential has another."""
Version = Annotated[str, Field(max_length=64)]
Platform = Annotated[str, Field(max_length=200)]
Bytes = Annotated[int, Field(ge=0, le=2**62)]
Attempt = Annotated[int, Field(ge=1, le=2**31 - 1)]


class EnrolRequest(Shape):
    """``POST /agent/enrol``, without any credential but the token, which works once."""

    token: str = Field(min_length=1, max_length=512)
    instance_id: InstanceId
    version: Version
    platform: Platform
    name: str | None = Field(default=None, max_length=100, description="What the machine would be called; a suggestion.")


class Enrolled(Shape):
    """The node's credential, which no other answer ever holds."""

    node_id: Id
    name: str
    credential: str = Field(min_length=1, description="To be sent as Authorization: Bearer; shown only now.")
    poll_seconds: int = Field(gt=0, description="How long a poll shall wait for something to happen.")


class FreeBytes(Shape):
    """Room on the disks of the two directories; null where it cannot be told."""

    receive: Bytes | None = None
    send: Bytes | None = None


class Receiver(Shape):
    """Where other nodes reach this one directly."""

    host: str = Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.:_-]+$")
    port: int = Field(ge=1, le=65535)
    certificate_sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PollRequest(Shape):
    """``POST /agent/poll``."""

    instance_id: InstanceId
    version: Version
    platform: Platform
    free_bytes: FreeBytes = Field(default_factory=FreeBytes)
    running: list[Id] = Field(max_length=MAX_RUNNING, description="Taken and not yet reported as ended; renews their leases.")
    capacity: int = Field(ge=0, le=1000, description="How many more commands the agent can take now.")
    health: list[Annotated[str, Field(max_length=500)]] = Field(
        default=[], max_length=MAX_HEALTH_SENTENCES, description="Sentences: what keeps the node from doing its work."
    )
    receiver: Receiver | None = Field(default=None, description="Where other nodes reach this one directly; null: nowhere.")
    kinds: list[Annotated[str, Field(pattern="^[a-z_]{1,32}$")]] = Field(
        default=[], max_length=32, description="Of commands that the agent can carry out; none named: move and check_network."
    )
    wait_seconds: int = Field(ge=0, le=MAX_WAIT_SECONDS, description="How long the answer may take.")
    expiring: list[Id] = Field(
        default=[], max_length=MAX_RUNNING, description="Of ``running``: moves whose ticket needs another URL before long."
    )


class MoveSpec(Shape):
    """Of a command ``move``: the rest is in its ticket."""

    direction: Literal["fetch", "put"]


class Secret(Shape):
    """The key of a receiver or of a store: good for one folder, kept sealed until it is delivered."""

    access_key_id: str = Field(min_length=1, max_length=256)
    secret_access_key: str = Field(min_length=1, max_length=256)


class Command(Shape):
    """Something for the node to do. Delivered again with the same id when nobody knows whether it arrived.

    ``transfer_id`` is the service's own; where ``spec`` has a ``transferId``, that is the id that people see.
    """

    id: Id
    kind: str = Field(max_length=32)
    attempt: int = Field(ge=1, description="How often it was delivered.")
    transfer_id: Id | None = None
    spec: dict[str, Any]
    ticket_url: str | None = Field(default=None, description="Presigned, of a move. Secret: whoever has it may move the data.")
    ticket_seconds: int | None = Field(default=None, gt=0, description="How long that URL works, from now.")
    secret: Secret | None = Field(default=None, description="Of receive, send and send_to_store. Never to be written into a log.")


class TicketUrl(Shape):
    """Another URL of a move's ticket, in the place of the one before. Secret as that."""

    id: Id
    ticket_url: str
    ticket_seconds: int = Field(gt=0, description="How long it works, from now.")


class PollAnswer(Shape):
    """What to begin, in this order, and what to end."""

    commands: list[Command] = Field(default=[])
    cancel: list[Id] = Field(default=[], description="To be ended; what they made goes with them.")
    ticket_urls: list[TicketUrl] = Field(default=[], description="Of what the agent named as ``expiring``.")
    unknown: list[Id] = Field(default=[], description="Of ``running``: not this node's, or ended. They are to be stopped.")
    rename_to: str | None = Field(default=None, description="The node has another name now.")
    parallel: int = Field(default=1, ge=1, description="Commands that the node's owner lets run at once.")
    lease_seconds: int = Field(gt=0, description="How long its commands stay with an agent that is not heard of.")


class StartedReport(Shape):
    """``POST /agent/commands/{id}/started``."""

    instance_id: InstanceId
    attempt: Attempt


class ProgressReport(Shape):
    """``POST /agent/commands/{id}/progress``: of ``send``, ``send_to_store`` and ``receive``, at most once in two seconds.

    Of ``receive``, ``bytesDone`` and ``bytesTotal`` are what is in the folder. ``check`` (what the look at the way to the
    receiver found) comes once, as soon as it is known.
    """

    instance_id: InstanceId
    attempt: Attempt
    bytes_done: Bytes
    bytes_total: Bytes | None = Field(default=None, description="Null until the source has been measured.")
    files_done: Bytes = 0
    files_total: Bytes | None = None
    rate_bytes_per_second: float = Field(default=0.0, ge=0, le=1e15, allow_inf_nan=False)
    current_file: str | None = Field(default=None, max_length=4096)
    errors: int = Field(default=0, ge=0, le=2**31 - 1)
    notices: list[Annotated[str, Field(max_length=500)]] = Field(default=[], max_length=MAX_NOTICES)
    check: dict[str, Any] | None = Field(default=None, description="At most 16 KiB of JSON.")

    @field_validator("check")
    @classmethod
    def _bounded(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return _within(value, MAX_CHECK_BYTES)


class ProgressAnswer(Shape):
    """What holds of the command from now on. A service that does not know this answers nothing, and nothing changes."""

    rate_limit_bytes_per_second: Annotated[int, Field(ge=1, le=2**50)] | None = Field(
        default=None, description="Of what sends: at most so fast; null: as fast as it goes."
    )
    max_bytes: Bytes | None = Field(default=None, description="Of ``receive``: what may arrive in all; null: it is not bounded.")


class EndedReport(Shape):
    """``POST /agent/commands/{id}/ended``. ``code`` is null after a good end, and stable otherwise."""

    instance_id: InstanceId
    attempt: Attempt
    exit_code: int = Field(ge=-(2**31), le=2**31 - 1, description="0: it did what it should.")
    code: str | None = Field(default=None, max_length=64)
    message: str = Field(default="", max_length=1000)
    result: dict[str, Any] | None = Field(default=None, description="At most 64 KiB of JSON.")

    @field_validator("result")
    @classmethod
    def _bounded(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return _within(value, MAX_RESULT_BYTES)


def _within(value: dict[str, Any] | None, most_bytes: int) -> dict[str, Any] | None:
    if value is not None and len(json.dumps(value).encode()) > most_bytes:
        raise ValueError(f"must not be longer than {most_bytes} bytes")
    return value
