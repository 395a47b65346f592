"""Why a job waits, in words for people: the scheduler's own word, what it means, and what can be done about it.

Words that only say "not yet your turn" (Priority, Resources) need no explanation and get none.
"""

from __future__ import annotations

from collections.abc import Mapping

_CLOSED = "its partition is closed at the moment; it starts when the site opens it again, after maintenance perhaps"
_TOO_LONG = (
    "it asks for more time than its partition allows, so it will not start by itself; "
    "tell the site's administrators, or cancel the transfer"
)
_TOO_LARGE = (
    "it asks for more than its partition allows, so it will not start by itself; "
    "tell the site's administrators, or cancel the transfer"
)
_NOT_ACCEPTED = (
    "the scheduler does not accept its account or quality of service, so it will not start; "
    "cancel the transfer and begin it with another account, or ask the site's support"
)
_LIMIT = (
    "a limit of your project, account or quality of service is reached; "
    "it starts when other jobs have ended or the budget is renewed, else ask the site's support"
)
_NODES = "nodes it could use are down, or reserved for maintenance; it starts when they are back"
_EXPLAINED: Mapping[str, str] = {
    "PartitionDown": _CLOSED,
    "PartitionInactive": _CLOSED,
    "PartitionTimeLimit": _TOO_LONG,
    "PartitionNodeLimit": _TOO_LARGE,
    "PartitionConfig": _TOO_LARGE,
    "BadConstraints": _TOO_LARGE,
    "InvalidAccount": _NOT_ACCEPTED,
    "InvalidQOS": _NOT_ACCEPTED,
    "AccountNotAllowed": _NOT_ACCEPTED,
    "ReqNodeNotAvail": _NODES,
    "Nodes_required_for_job_are_DOWN": _NODES,
    "NodeDown": _NODES,
    "Reservation": "it waits for a reservation of nodes to begin",
    "BeginTime": "it may not start before a time that the scheduler has set, two minutes after it was put back as a rule",
    "JobHeldAdmin": "an administrator holds it; ask the site's support why",
    "JobHoldMaxRequeue": "it was put back into the queue too often, and is held; ask the site's support",
    "NodeOffline": "the data transfer node is not connected; it starts when the node's agent is back",
    "NodeNotEnrolled": "no agent has enrolled as this data transfer node yet; it starts when one has",
    "Licenses": "it waits for licences that other jobs use",
}


def why_it_waits(job_reason: str | None) -> str | None:
    """A sentence for the scheduler's ``job_reason``; None when there is nothing to explain, or the word is not known."""
    # "ReqNodeNotAvail, UnavailableNodes:n[1-2]"; "(Nodes required for job are DOWN, …)" comes with blanks or underscores.
    word = (job_reason or "").lstrip("(").partition(",")[0].strip().replace(" ", "_")
    explained = _EXPLAINED.get(word)
    if explained is None and word.startswith(("Assoc", "QOS", "MaxJob", "MaxSubmit")):
        explained = _LIMIT
    return f"The staging job waits: {explained} ({word})." if explained is not None else None
