"""The one table of what may happen to a transfer: every state, every event, and the state that follows.

    upload    preparing → receiving → staged → queued → moving → done
    download  preparing → queued → moving → staged → done
    within      preparing → queued → moving → done
    any of them → failed (with a code), cancelling → cancelled, or expired

What the table lacks cannot happen: :func:`advance` raises, and nothing is saved. The drawing in
``docs/life-of-a-transfer.md`` is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from stagecoach.core.errors import Conflict
from stagecoach.core.transfer import Direction, State, Transfer


class Event(StrEnum):
    """What happens to a transfer, seen by a request or by the worker."""

    PREPARED = "prepared"
    COMPLETED = "completed"
    RELEASED = "released"
    STARTED = "started"
    REQUEUED = "requeued"
    RESUBMITTED = "resubmitted"
    ARRIVED = "arrived"
    FETCHED = "fetched"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCEL_ASKED = "cancel asked"
    CANCEL_DONE = "cancel done"
    CANCEL_TOO_LATE = "cancel too late"
    RETRY_ASKED = "retry asked"
    REOPENED = "reopened"


EXPLAINED: Mapping[Event, str] = {
    Event.PREPARED: "Bucket, multipart upload, ticket and job are made; an operation has ticket and job only.",
    Event.COMPLETED: "The whole object is in the staging area.",
    Event.RELEASED: "The staging job may run.",
    Event.STARTED: "The staging job runs.",
    Event.REQUEUED: "The scheduler put the running job back into its queue.",
    Event.RESUBMITTED: "The job ended before its work, for a reason that passes; another continues it.",
    Event.ARRIVED: "The receipt proves that the job's work is done.",
    Event.FETCHED: "The client has the staged object.",
    Event.FAILED: "It cannot go on; code and reason say why.",
    Event.EXPIRED: "Its time ran out.",
    Event.CANCEL_ASKED: "Its owner wants it to end.",
    Event.CANCEL_DONE: "Nothing of it is left.",
    Event.CANCEL_TOO_LATE: "It had arrived before it could be cancelled.",
    Event.RETRY_ASKED: "Its owner wants it to go on from what is staged.",
    Event.REOPENED: "Its owner wants to go on putting parts.",
}

_STOPPED: Mapping[Event, State] = {Event.FAILED: State.FAILED, Event.CANCEL_ASKED: State.CANCELLING}
_STOPPED_OR_OVER: Mapping[Event, State] = {**_STOPPED, Event.EXPIRED: State.EXPIRED}

TABLE: Mapping[Direction, Mapping[State, Mapping[Event, State]]] = {
    Direction.UPLOAD: {
        State.PREPARING: {Event.PREPARED: State.RECEIVING, **_STOPPED},
        State.RECEIVING: {Event.COMPLETED: State.STAGED, **_STOPPED_OR_OVER},
        State.STAGED: {Event.RELEASED: State.QUEUED, **_STOPPED_OR_OVER},
        State.QUEUED: {
            Event.STARTED: State.MOVING,
            Event.RESUBMITTED: State.QUEUED,
            Event.ARRIVED: State.DONE,
            **_STOPPED_OR_OVER,
        },
        State.MOVING: {
            Event.REQUEUED: State.QUEUED,
            Event.RESUBMITTED: State.QUEUED,
            Event.ARRIVED: State.DONE,
            **_STOPPED,
        },
        State.FAILED: {Event.RETRY_ASKED: State.STAGED, Event.REOPENED: State.RECEIVING},
        State.CANCELLING: {Event.CANCEL_DONE: State.CANCELLED, Event.CANCEL_TOO_LATE: State.DONE},
    },
    Direction.DOWNLOAD: {
        State.PREPARING: {Event.PREPARED: State.QUEUED, **_STOPPED},
        State.QUEUED: {
            Event.STARTED: State.MOVING,
            Event.RESUBMITTED: State.QUEUED,
            Event.ARRIVED: State.STAGED,
            **_STOPPED_OR_OVER,
        },
        State.MOVING: {
            Event.REQUEUED: State.QUEUED,
            Event.RESUBMITTED: State.QUEUED,
            Event.ARRIVED: State.STAGED,
            **_STOPPED,
        },
        State.STAGED: {Event.FETCHED: State.DONE, **_STOPPED_OR_OVER},
        State.FAILED: {Event.RETRY_ASKED: State.QUEUED},
        State.CANCELLING: {Event.CANCEL_DONE: State.CANCELLED},
    },
    Direction.WITHIN: {
        State.PREPARING: {Event.PREPARED: State.QUEUED, **_STOPPED},
        State.QUEUED: {Event.STARTED: State.MOVING, Event.RESUBMITTED: State.QUEUED, Event.ARRIVED: State.DONE, **_STOPPED},
        State.MOVING: {
            Event.REQUEUED: State.QUEUED,
            Event.RESUBMITTED: State.QUEUED,
            Event.ARRIVED: State.DONE,
            **_STOPPED,
        },
        State.FAILED: {Event.RETRY_ASKED: State.QUEUED},
        State.CANCELLING: {Event.CANCEL_DONE: State.CANCELLED, Event.CANCEL_TOO_LATE: State.DONE},
    },
}


def can(transfer: Transfer, event: Event) -> bool:
    """Whether the table has a step for ``event`` where the transfer is now."""
    return event in TABLE[transfer.direction].get(transfer.state, {})


def advance(transfer: Transfer, event: Event, now: datetime, *, code: str | None = None, reason: str | None = None) -> Transfer:
    """``transfer`` in the state that follows ``event``.

    Raises:
        Conflict: the table has no such step.
    """
    to = TABLE[transfer.direction].get(transfer.state, {}).get(event)
    if to is None:
        raise Conflict(f"The transfer is {transfer.state}; that does not allow: {event}.", data={"state": transfer.state.value})
    return replace(
        transfer,
        state=to,
        code=code,
        reason=reason,
        changed_at=now,
        updated_at=now,
        ended_at=now if to.is_end else None,
        failed_looks=0,
        job_missing_since=None,
        # Nothing came of the request that made it, so repeating that request begins anew.
        idempotency_key=None if (transfer.state, to) == (State.PREPARING, State.FAILED) else transfer.idempotency_key,
    )


def drawing(direction: Direction) -> str:
    """The table as a Mermaid state diagram."""
    arrows: dict[tuple[State, State], list[Event]] = {}
    for state, steps in TABLE[direction].items():
        for event, to in steps.items():
            arrows.setdefault((state, to), []).append(event)
    lines = ["stateDiagram-v2", f"    [*] --> {State.PREPARING}"]
    lines += [f"    {state} --> {to}: {', '.join(events)}" for (state, to), events in arrows.items()]
    reached = {to for _, to in arrows}
    lines += [f"    {state} --> [*]" for state in State if state.is_end and state in reached]
    return "\n".join(lines) + "\n"
