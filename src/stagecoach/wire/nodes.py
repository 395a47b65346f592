"""Shapes of data transfer nodes, their queues, and the grants to send to them, as people see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from stagecoach.wire.shapes import Shape

NodeName = Annotated[
    str,
    Field(
        min_length=1, max_length=100, pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$", description="For people; one's own differ."
    ),
]
CommandId = Annotated[str, Field(min_length=1, max_length=64)]
UserName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
FolderPath = Annotated[str, Field(min_length=1, max_length=4095, description="Below the receive directory; / is all of it.")]
GrantBytes = Annotated[int, Field(ge=1, le=2**62, strict=True)]
Moment = Annotated[AwareDatetime, Field(json_schema_extra={"maxLength": 40})]
Label = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class NodeRequest(Shape):
    """A new node."""

    name: NodeName


class NodeChange(Shape):
    """What shall be different; absent: it stays."""

    name: NodeName | None = None
    parallel: Annotated[int, Field(ge=1, le=64, strict=True)] | None = Field(
        None, description="Commands that it carries out at once."
    )


class FreeBytes(Shape):
    """Room on the node's disks; null: not known."""

    receive: int | None = None
    send: int | None = None


class NodeView(Shape):
    """A node. Who may only send to it sees null from ``version`` on."""

    id: str
    container_id: str = Field(description="The same as id.")
    system: str = Field(description="Its name as a system: where transfers go to and come from.")
    name: str
    owner: str
    state: Literal["waiting", "online", "offline", "revoked"] = Field(description="waiting: for its agent to enrol.")
    last_seen: datetime | None = None
    version: str | None = Field(None, description="Of its agent.")
    platform: str | None = None
    free_bytes: FreeBytes | None = None
    address: str | None = Field(None, description="Where its agent calls from, as the service sees it.")
    health: list[str] | None = Field(None, description="What is wrong, by its agent, the service and the newest network check.")
    parallel: int | None = None
    created_at: datetime | None = None
    enrolled_at: datetime | None = None


class RegisteredNodeAnswer(NodeView):
    """A node with a new enrolment token."""

    enrolment_token: str = Field(description="For its agent, once; shown only now.")
    enrolment_expires_at: datetime
    command: str = Field(description="What to run on the machine, once the agent is installed there.")


class NodeList(Shape):
    """Newest first."""

    nodes: list[NodeView]


class CommandRequest(Shape):
    """Something that the node shall do, besides transfers."""

    kind: Literal["check_network"] = Field(description="check_network: try whether it reaches the service and the store.")


class CommandView(Shape):
    """A command in a node's queue, or one that has ended."""

    id: str
    number: int = Field(description="Its place; the smallest comes first.")
    kind: str
    state: Literal["held", "pending", "delivered", "running", "done", "failed", "cancelled"]
    owner: str = Field(description="Who asked for it.")
    transfer_id: str | None = None
    direction: str | None = Field(None, description="fetch: to the node; put: from it.")
    cancel_asked: bool
    created_at: datetime
    delivered_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attempt: int = Field(description="How often it was given to the agent.")
    exit_code: int | None = None
    code: str | None = None
    message: str | None = None
    source_path: str | None = Field(None, description="Of what the node sends to another node or to a store.")
    progress: dict[str, Any] | None = Field(None, description="The same: how far its agent last said that it was.")
    result: dict[str, Any] | None = Field(
        None, description="What a network check found, on each way; or what was sent, and whether it was compared."
    )


class CommandPage(Shape):
    """The last of the queue first."""

    commands: list[CommandView]
    next: str | None = Field(None, description="Ask with it as `after`; null: there are no more.")


class OrderRequest(Shape):
    """Commands that wait, in the order in which they shall be carried out."""

    ids: Annotated[list[CommandId], Field(min_length=1, max_length=1000)]


class GrantTerms(Shape):
    """What may be sent."""

    folder: FolderPath = "/"
    max_bytes: GrantBytes | None = Field(None, description="Bytes of all transfers begun under it; null: as many as fit.")
    expires_at: Moment | None = Field(None, description="With a zone; null: until it is revoked.")


class GrantRequest(GrantTerms):
    """The right to send, for somebody who is known here."""

    user: UserName
    label: Label | None = None


class InvitationRequest(GrantTerms):
    """The right to send, for whoever has the link and redeems it first."""

    label: Label | None = None


class GrantView(Shape):
    """A grant, or an invitation that nobody has redeemed yet (``user`` is null)."""

    id: str
    node_id: str
    user: str | None
    folder: str
    max_bytes: int | None
    used_bytes: int
    created_at: datetime
    expires_at: datetime | None
    invitation_expires_at: datetime | None = None
    redeemed_at: datetime | None = None
    label: str | None = None


class GrantList(Shape):
    """Newest first."""

    grants: list[GrantView]


class InvitationAnswer(GrantView):
    """A new invitation."""

    token: str = Field(description="For whoever is invited; shown only now.")
    url: str = Field(description="The same as a link. Whoever has it may redeem it, once.")


class RedeemRequest(Shape):
    """The token of an invitation."""

    token: Annotated[str, Field(min_length=1, max_length=200)]


class HeldGrantView(Shape):
    """What the caller may send to, and how much."""

    id: str
    node_id: str
    container_id: str = Field(description="The same as nodeId.")
    system: str = Field(description="The node's name as a system.")
    node_name: str
    node_owner: str
    folder: str
    max_bytes: int | None
    used_bytes: int
    expires_at: datetime | None


class HeldGrantList(Shape):
    """Newest first."""

    grants: list[HeldGrantView]
