"""A transfer's road drawn as steps, and how far each of its legs is. Pure: from what the API says of the transfer."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stagecoach.portal.words import size_words

ENDS = frozenset({"done", "failed", "cancelled", "expired"})
LIVE = ("preparing", "receiving", "staged", "queued", "moving", "cancelling")
STATE_WORDS = {
    "preparing": "Preparing",
    "receiving": "Uploading",
    "staged": "Staged",
    "queued": "Waiting for the system",
    "moving": "Moving",
    "done": "Done",
    "failed": "Failed",
    "cancelling": "Cancelling",
    "cancelled": "Cancelled",
    "expired": "Expired",
}
# Fewer are read as they are.
_MANY_BYTES = re.compile(r"\b([0-9]{4,18}) bytes\b", re.ASCII)
OPERATION_WORDS = {"mv": "Move", "cp": "Copy", "rm": "Delete", "compress": "Pack", "extract": "Unpack"}

# States in their order, and what each is called on the road.
_ROADS: Mapping[str, Sequence[tuple[str, str]]] = {
    "upload": (
        ("preparing", "Prepared"),
        ("receiving", "To the staging area"),
        ("queued", "Waiting for the system"),
        ("moving", "To its place"),
        ("done", "There, and verified"),
    ),
    "download": (
        ("preparing", "Prepared"),
        ("queued", "Waiting for the system"),
        ("moving", "To the staging area"),
        ("staged", "Ready to fetch"),
        ("done", "Fetched"),
    ),
    "relay": (
        ("preparing", "Prepared"),
        ("receiving", "To the staging area"),
        ("queued", "Waiting for its destination"),
        ("moving", "To its place"),
        ("done", "There, and verified"),
    ),
    "direct": (
        ("preparing", "Prepared"),
        ("receiving", "Straight from node to node"),
        ("queued", "Waiting for its destination"),
        ("moving", "To its place"),
        ("done", "There, and verified"),
    ),
    "within": (
        ("preparing", "Prepared"),
        ("queued", "Waiting for the system"),
        ("moving", "At work"),
        ("done", "Done"),
    ),
}


@dataclass(frozen=True, slots=True)
class Step:
    """``state`` is done, current, failed or ahead."""

    name: str
    state: str


@dataclass(frozen=True, slots=True)
class Leg:
    """Bytes from one place to the next."""

    name: str
    done_bytes: int
    size_bytes: int | None
    is_live: bool


def is_relay(transfer: Mapping[str, Any]) -> bool:
    """From one system to another, and no client at either end."""
    return transfer["direction"] == "upload" and transfer.get("source") is not None


def is_direct(transfer: Mapping[str, Any]) -> bool:
    """Straight from node to node, where the service knows such a road."""
    return is_relay(transfer) and transfer.get("road") == "direct"


def may_stop(transfer: Mapping[str, Any]) -> bool:
    """For now, so that a retry goes on. A service that says which road a transfer takes, or that it can be stopped, can do it."""
    if transfer["direction"] == "within" or not (transfer.get("stop") or "road" in transfer):
        return False
    if is_direct(transfer) and transfer["state"] == "moving":
        return False  # it takes its place at this moment
    return transfer["state"] in {"queued", "moving"} or (transfer["state"] == "receiving" and is_relay(transfer))


def state_words(transfer: Mapping[str, Any]) -> str:
    """Its state in a word or two."""
    if transfer["state"] == "receiving" and is_relay(transfer):
        return "Coming from its source"
    return STATE_WORDS[transfer["state"]]


def steps(transfer: Mapping[str, Any]) -> list[Step]:
    """The present one is current; where it ended without success, failed."""
    road = _ROADS["direct" if is_direct(transfer) else "relay" if is_relay(transfer) else transfer["direction"]]
    place = _place(road, transfer["state"])
    if place is None:
        reached = [_place(road, line["state"]) for line in transfer.get("history", ())]
        place = max((each for each in reached if each is not None), default=0)
        here = "failed" if transfer["state"] in {"failed", "expired"} else "current"
    else:
        here = "done" if transfer["state"] == "done" else "current"
    return [
        Step(name, "done" if number < place else here if number == place else "ahead") for number, (_, name) in enumerate(road)
    ]


def legs(transfer: Mapping[str, Any], names: Mapping[str, str]) -> list[Leg]:
    """What can be measured of it. ``names`` are those of nodes, by their names as systems."""
    size, state = transfer["sizeBytes"], transfer["state"]
    staged, moved = transfer["bytesStaged"], transfer["bytesMoved"]
    system = place_name(transfer["system"], names)
    if is_relay(transfer):
        each = {leg["leg"]: leg for leg in transfer.get("legs", ())}
        source = each.get("source", {})
        origin = place_name(transfer["source"]["system"], names)
        if is_direct(transfer):
            sent = size if state == "done" else source.get("bytesMoved", moved)
            return [Leg(f"{origin} → {system}", int(sent or 0), size or source.get("sizeBytes"), state == "receiving")]
        brought = size if state in {"staged", "queued", "moving", "done"} else source.get("bytesMoved", staged)
        return [
            Leg(f"{origin} → staging area", int(brought or 0), size or source.get("sizeBytes"), state == "receiving"),
            Leg(f"Staging area → {system}", size if state == "done" else moved, size, state == "moving"),
        ]
    if transfer["direction"] == "upload":
        return [
            Leg("Your computer → staging area", staged, size, state == "receiving"),
            Leg(f"Staging area → {system}", moved, size, state == "moving"),
        ]
    if transfer["direction"] == "download":
        return [Leg(f"{system} → staging area", moved, size, state == "moving")]
    return [Leg(f"On {system}", moved, size, state == "moving")]


def place_name(system: str, names: Mapping[str, str]) -> str:
    """Of a node whose name one does not know, that it is one."""
    return names.get(system) or ("a node" if system.startswith("node:") else system)


def for_people(sentence: str, names: Mapping[str, str]) -> str:
    """A sentence of the service's, with nodes called as their owners call them, and no long numbers of bytes."""
    for system, name in names.items():
        sentence = sentence.replace(system, name)
    return _MANY_BYTES.sub(lambda found: size_words(int(found[1])), sentence)


def between(transfer: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Where it comes from and goes to, in a few words behind its kind."""
    system = place_name(transfer["system"], names)
    if is_relay(transfer):
        return f"from {place_name(transfer['source']['system'], names)} to {system}"
    return f"{ {'upload': 'to', 'download': 'from'}.get(transfer['direction'], 'on') } {system}"


def done_bytes(transfer: Mapping[str, Any]) -> int:
    """Of the leg that is under way, for the one bar of a list."""
    if transfer["state"] == "done":
        return int(transfer["sizeBytes"] or 0)
    return int(transfer["bytesStaged"] if transfer["state"] == "receiving" else transfer["bytesMoved"])


def title_of(transfer: Mapping[str, Any]) -> str:
    """What is moved, by its last name."""
    path = str(transfer["sourcePath"] or transfer["path"])
    return posixpath.basename(path.rstrip("/")) or path


def direction_words(transfer: Mapping[str, Any]) -> str:
    """In a word."""
    if transfer["direction"] == "within":
        return OPERATION_WORDS.get(transfer["operation"], "Operation")
    if is_relay(transfer):
        return "Transfer"
    return "Upload" if transfer["direction"] == "upload" else "Download"


def advice(transfer: Mapping[str, Any]) -> str:
    """What to do, where its reason alone does not say it."""
    state = transfer["state"]
    if state == "receiving" and is_relay(transfer):
        return ""
    if state == "receiving":
        return "The parts come from the browser or program that began it; choose the same file again there to go on."
    if state == "staged" and transfer["direction"] == "download":
        return "It is ready: fetch it, and then say that you have it, so that the staged copy goes."
    if state == "failed" and transfer["retryUntil"]:
        return "Retry goes on from what is staged: nothing that arrived is sent again."
    if state == "failed":
        return "Nothing of it is kept. When the reason is gone, begin it again."
    if state == "expired":
        return "It was not used in time. Begin it again."
    return ""


def _place(road: Sequence[tuple[str, str]], state: str) -> int | None:
    names = [name for name, _ in road]
    # An upload that is whole waits for its job to be released: a moment of the same wait.
    if state == "staged" and "staged" not in names:
        state = "queued"
    return names.index(state) if state in names else None
