"""Finds what an earlier request with the same idempotency key began, so that a lost answer never makes two transfers.

As draft-ietf-httpapi-idempotency-key-header has it: the same key with another request is refused, and one whose first
request is still being carried out is told to come back. A transfer that failed while it was being prepared has given its
key up (``state_machine.advance``), so its request begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from stagecoach.core.access import Caller
from stagecoach.core.errors import KeyReused, RequestUnderWay
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class RepeatableRequest:
    """A request with an idempotency key; ``digest`` (hex) is of all that it asks for."""

    idempotency_key: str
    digest: str


async def find_begun(tools: Toolbox, caller: Caller, repeatable: RepeatableRequest | None) -> Transfer | None:
    """The transfer that this very request began before; None where it comes for the first time or has no key.

    Raises:
        KeyReused: the key came with another request. RequestUnderWay: the transfer is still being prepared.
    """
    if repeatable is None:
        return None
    earlier = await tools.transfers.find_by_idempotency_key(caller.username, repeatable.idempotency_key)
    if earlier is None:
        return None
    if earlier.request_digest != repeatable.digest:
        raise KeyReused(
            "This Idempotency-Key came before with another request; give each request a key of its own.",
            data={"transfer_id": earlier.id},
        )
    if earlier.state is State.PREPARING:
        raise RequestUnderWay("The same request is being carried out; ask again in a moment.", data={"transfer_id": earlier.id})
    return earlier
