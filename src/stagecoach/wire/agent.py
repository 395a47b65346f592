"""The words between this service and the agents of nodes. Each field is bounded: an agent is a stranger's machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, field_validator

from stagecoach.wire.shapes import Shape

MAX_WAIT_SECONDS = 50
POLL_SECONDS = 50
MAX_RESULT_BYTES = 64 * 1024
_PLAIN = r"^[^\x00-\x1f\x7f]*$"
InstanceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{8,64}$", description="Made by the agent when it was installed.")]
Version = Annotated[str, Field(max_length=64, pattern=_PLAIN)]
Platform = Annotated[str, Field(max_length=200, pattern=_PLAIN)]
CommandId = Annotated[str, Field(min_length=1, max_length=64)]
Bytes = Annotated[int, Field(ge=0, le=2**62)]
Sentence = Annotated[str, Field(max_length=300, pattern=_PLAIN)]


class EnrolRequest(Shape):
    """An agent's first words."""

    token: Annotated[str, Field(min_length=1, max_length=200)]
    instance_id: InstanceId
    version: Version
    platform: Platform


class EnrolAnswer(Shape):
    """Who it is from now on."""

    node_id: str
    name: str
    credential: str = Field(description="To be sent as Authorization: Bearer; shown only now.")
    poll_seconds: int


class FreeBytes(Shape):
    """Room on its disks; null: not known."""

    receive: Bytes | None = None
    send: Bytes | None = None


class Receiver(Shape):
    """Where other nodes may bring data straight to it."""

    host: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x20\x7f]+$")]
    port: Annotated[int, Field(ge=1, le=65535)]
    certificate_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PollRequest(Shape):
    """How the agent is, and what it would take."""

    instance_id: InstanceId
    version: Version
    platform: Platform
    free_bytes: FreeBytes = Field(default_factory=FreeBytes)
    running: Annotated[list[CommandId], Field(max_length=500)] = Field(default_factory=list, description="All that it has.")
    capacity: Annotated[int, Field(ge=0, le=64)] = Field(description="How many more it takes now.")
    health: Annotated[list[Sentence], Field(max_length=20)] = Field(default_factory=list)
    receiver: Receiver | None = None
    wait_seconds: Annotated[int, Field(ge=0, le=MAX_WAIT_SECONDS)] = Field(description="How long the answer may take.")


class Command(Shape):
    """What the agent is to do. The same id may come again, with a larger ``attempt``: it is the same command."""

    id: str
    kind: str
    attempt: int
    transfer_id: str | None = None
    spec: dict[str, Any]
    ticket_url: str | None = Field(None, description="Secret: whoever has it may move the data.")


class PollAnswer(Shape):
    """What there is to do, and what not any more."""

    commands: list[Command]
    cancel: list[str] = Field(description="To be ended; what they made goes with them.")
    unknown: list[str] = Field(description="Of ``running``, those that are not this agent's: to be stopped.")
    rename_to: str | None = Field(None, description="The node has another name now.")
    parallel: int = Field(description="Commands that the node's owner lets run at once.")
    lease_seconds: int = Field(description="How long its commands stay with it after this answer, if it is not heard of.")


class StartedRequest(Shape):
    """A command has begun."""

    instance_id: InstanceId
    attempt: Annotated[int, Field(ge=1, le=2**31 - 1)]


class EndedRequest(StartedRequest):
    """A command has ended."""

    exit_code: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] = Field(description="0: it did what it should.")
    code: Annotated[str, Field(max_length=64, pattern=_PLAIN)] | None = None
    message: Annotated[str, Field(max_length=1000, pattern=_PLAIN)] | None = None
    result: dict[str, Any] | None = Field(None, description="At most 64 KiB of JSON.")

    @field_validator("result")
    @classmethod
    def _is_small(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        text = json.dumps(value)
        if len(text) > MAX_RESULT_BYTES:
            raise ValueError(f"must be at most {MAX_RESULT_BYTES} bytes of JSON")
        if "\\u0000" in text:
            raise ValueError("must hold no NUL character")
        return value
