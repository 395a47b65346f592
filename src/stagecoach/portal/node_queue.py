"""A node's page: how it is, what waits in its queue and what has ended, and what its owner does with that."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal import roads
from stagecoach.portal.api_calls import ApiRefusal, Params
from stagecoach.portal.network_words import verdicts_of, ways_of
from stagecoach.portal.nodes import ONE, api_path, page_path, shown_node
from stagecoach.portal.visits import Endpoint, Visit, page
from stagecoach.portal.words import size_words

OPEN = ("held", "pending", "delivered", "running")
WAITING = ("held", "pending")
ENDED = ("done", "failed", "cancelled")
PAGE_COMMANDS = 500
QUEUE_SHOWN = 100
HISTORY_SHOWN = 20
MOST_ORDERED = 1000
STOP_ASKING = 286
MOST_BYTES = 2**62
CHECK, TO_STORE = "check_network", "send_to_store"
STATE_WORDS = {
    "held": "Waits for its data",
    "pending": "Waiting",
    "delivered": "Handed over",
    "running": "At work",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
KIND_WORDS = {
    CHECK: "Network check",
    "move": "Transfer",
    "receive": "Receives from a node",
    "send": "Sends to a node",
    "place": "Puts a transfer in its place",
    "discard": "Clears away what a transfer left",
    TO_STORE: "Sends to a store",
}
DIRECTION_WORDS = {"fetch": "Comes to this node", "put": "Goes from this node"}


@page
async def show_node(visit: Visit) -> Response:
    """All of one that its owner sees; whoever may only send to it sees little."""
    shown = await shown_node(visit)
    if not shown["is_mine"]:
        return visit.render("node_of_others.html", **shown)
    return visit.render("node.html", **shown, **await _queue(visit))


@page
async def show_now(visit: Visit) -> Response:
    """What changes on its page, for the script that keeps it up to date."""
    return await _now(visit)


@page
async def show_check(visit: Visit) -> Response:
    """What a network check found."""
    command = await visit.api("GET", f"{api_path(visit)}/commands/{visit.part('command_id')}")
    shown = {"command": command, "ways": ways_of(command["result"]), "is_live": command["state"] not in ENDED}
    shown |= {"state_words": STATE_WORDS, "node_id": visit.part("node_id")}
    if visit.is_fragment:
        return visit.fragment("node_check_now.html", 200 if shown["is_live"] else STOP_ASKING, **shown)
    return visit.render("node_check.html", **shown, **await shown_node(visit))


def of_queue(handler: Callable[[Visit], Awaitable[str]]) -> Endpoint:
    """A form of the queue, which answers a sentence: scripts get the queue as it is now, others the node's page."""

    @functools.wraps(handler)
    async def done(visit: Visit) -> Response:
        said, trouble = "", ""
        try:
            said = await handler(visit)
        except ApiRefusal as refusal:
            if refusal.status == 401:
                raise
            trouble = refusal.message
        if visit.is_fragment:
            return await _now(visit, said, trouble)
        if trouble:
            visit.complain(trouble)
        elif said:
            visit.say(said)
        return visit.go(page_path(visit))

    return page(done)


async def check_network(visit: Visit) -> str:
    """The node looks at its ways, when its turn comes."""
    await visit.api("POST", f"{api_path(visit)}/commands", json={"kind": CHECK})
    return "The node is asked to check its network; what it finds appears here."


async def move_up(visit: Visit) -> str:
    """Before the one that comes before it."""
    return await _moved(visit, -1)


async def move_down(visit: Visit) -> str:
    """Behind the one that comes after it."""
    return await _moved(visit, 1)


async def order(visit: Visit) -> str:
    """As they were dragged."""
    ids = [one for one in visit.form.get("ids", "").split(",") if one][:MOST_ORDERED]
    await visit.api("PUT", f"{api_path(visit)}/order", json={"ids": ids})
    return "The queue is in its new order."


async def remove(visit: Visit) -> str:
    """What has not ended is cancelled; what has is taken off the list."""
    path = f"{api_path(visit)}/commands/{visit.part('command_id')}"
    command = await visit.api("GET", path)
    await visit.api("DELETE", path)
    if command["state"] in ENDED:
        return "It is taken off the list."
    return "It is cancelled." if command["transferId"] is None else "It is cancelled, with its transfer."


async def _moved(visit: Visit, step: int) -> str:
    command_id = visit.part("command_id")
    waiting = [command["id"] for command in await _open_commands(visit) if command["state"] in WAITING]
    if command_id not in waiting:
        raise ApiRefusal(409, "conflict", "It does not wait any more, so it has no place in the queue.")
    here = waiting.index(command_id)
    there = here + step
    if not 0 <= there < len(waiting):
        return "It is the first that waits." if step < 0 else "It is the last of the queue."
    pair = [command_id, waiting[there]] if step < 0 else [waiting[there], command_id]
    await visit.api("PUT", f"{api_path(visit)}/order", json={"ids": pair})
    return f"It is now number {there + 1} of the {len(waiting)} that wait."


async def _now(visit: Visit, said: str = "", trouble: str = "") -> Response:
    shown = {**await shown_node(visit), **await _queue(visit), "said": said, "trouble": trouble}
    return visit.fragment("node_now.html", **shown)


async def _queue(visit: Visit) -> dict[str, Any]:
    """What is in the queue, first things first, and a page of what has ended, the newest first."""
    queue = await _open_commands(visit)
    before = visit.query.get("after", "")
    question: Params = {"state": list(ENDED), "limit": HISTORY_SHOWN, "after": before if before.isdigit() else None}
    history = await visit.api("GET", f"{api_path(visit)}/commands", params=question)
    commands = [*queue[:QUEUE_SHOWN], *history["commands"]]
    check = next((one for one in history["commands"] if one["kind"] == CHECK), None)
    transfers = await _own_transfers(visit, commands)
    return {
        "queue": queue[:QUEUE_SHOWN],
        "more_count": max(0, len(queue) - QUEUE_SHOWN),
        "waiting_ids": [command["id"] for command in queue if command["state"] in WAITING],
        "is_checking": any(command["kind"] == CHECK for command in queue),
        "history": history["commands"],
        "next_page": history["next"],
        "after": before if before.isdigit() else "",
        "check": check,
        "verdicts": verdicts_of(ways_of(check["result"])) if check else [],
        "transfers": transfers,
        "title_of": lambda command: _title(command, transfers),
        "state_words": STATE_WORDS,
        "what_words": _what_words,
        "outcome_words": _outcome_words,
        "progress_of": lambda command: _progress(command, transfers),
        "waiting_states": WAITING,
        "said": "",
        "trouble": "",
    }


async def _open_commands(visit: Visit) -> list[dict[str, Any]]:
    """All that have not ended, the next one first."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        question: Params = {"state": list(OPEN), "limit": PAGE_COMMANDS, "after": after}
        answer = await visit.api("GET", f"{api_path(visit)}/commands", params=question)
        found += answer["commands"]
        after = answer["next"]
        if after is None:
            return found[::-1]


async def _own_transfers(visit: Visit, commands: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of these commands that are one's own, by their ids. Others' are no business of the node's owner."""
    wanted = {command["transferId"] for command in commands if command["owner"] == visit.me["user"]} - {None}
    if not wanted:
        return {}
    found = await visit.api("GET", "/transfers", params={"limit": 100, "owner": visit.me["user"]})
    return {transfer["id"]: transfer for transfer in found["transfers"] if transfer["id"] in wanted}


def _what_words(command: Mapping[str, Any]) -> str:
    """What it does, where its name does not say it."""
    return KIND_WORDS[TO_STORE] if command["kind"] == TO_STORE else DIRECTION_WORDS.get(command["direction"] or "", "")


def _outcome_words(command: Mapping[str, Any]) -> list[str]:
    """How much was sent to a store, and whether it was compared there: as the node's agent says, which may say anything."""
    told = command["result"]
    if command["kind"] != TO_STORE or command["state"] != "done" or not isinstance(told, Mapping):
        return []
    size_bytes = told.get("sizeBytes")
    is_size = isinstance(size_bytes, int) and not isinstance(size_bytes, bool) and 0 <= size_bytes <= MOST_BYTES
    return [*([size_words(size_bytes)] if is_size else []), "compared" if told.get("verified") is True else "not compared"]


def _progress(command: Mapping[str, Any], transfers: Mapping[str, Mapping[str, Any]]) -> tuple[int, int | None] | None:
    """Bytes that are done, and of how many; None where nobody tells, or it does not run."""
    transfer = transfers.get(command["transferId"] or "")
    if command["state"] != "running":
        return None
    if transfer is not None:
        return transfer["bytesMoved"], transfer["sizeBytes"]
    told = command["progress"] if command["kind"] == TO_STORE else None
    return (told["bytesDone"], told["bytesTotal"]) if told else None


def _title(command: Mapping[str, Any], transfers: Mapping[str, Mapping[str, Any]]) -> str:
    """What it is about: a file's name where that is known."""
    transfer = transfers.get(command["transferId"] or "")
    if transfer is not None:
        return roads.title_of(transfer)
    if command["kind"] == TO_STORE and command["sourcePath"]:
        return posixpath.basename(command["sourcePath"]) or str(command["sourcePath"])
    return KIND_WORDS.get(command["kind"], "Command")


routes = [
    Route(ONE, show_node, methods=["GET"]),
    Route(f"{ONE}/now", show_now),
    Route(f"{ONE}/checks", of_queue(check_network), methods=["POST"]),
    Route(f"{ONE}/checks/{{command_id}}", show_check, methods=["GET"]),
    Route(f"{ONE}/order", of_queue(order), methods=["POST"]),
    Route(f"{ONE}/commands/{{command_id}}/up", of_queue(move_up), methods=["POST"]),
    Route(f"{ONE}/commands/{{command_id}}/down", of_queue(move_down), methods=["POST"]),
    Route(f"{ONE}/commands/{{command_id}}/remove", of_queue(remove), methods=["POST"]),
]
