"""Transfers: the list that keeps itself up to date, and a page each with its road, its story and what can be done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from stagecoach.portal import roads
from stagecoach.portal.api_calls import ApiRefusal, Params
from stagecoach.portal.files import address_of
from stagecoach.portal.listing import parent_of
from stagecoach.portal.network_words import way_between
from stagecoach.portal.places import is_node, names_of
from stagecoach.portal.rate_bars import rate_bars
from stagecoach.portal.visits import Visit, action, page
from stagecoach.portal.words import end_of_day, moment_of

TRANSFERS = "/portal/transfers"
ONE = TRANSFERS + "/{transfer_id}"
PAGE_TRANSFERS = 25
# Of presigned URLs, by the API.
SHORTEST_LINK_SECONDS, LONGEST_LINK_SECONDS = 60, 7 * 24 * 3600
# htmx asks no more after an answer with this status.
STOP_ASKING = 286
CHOICES = {
    "": "All",
    "open": "Under way",
    "done": "Done",
    "failed": "Failed",
    "ended": "Cancelled or expired",
}
_STATES = {"open": list(roads.LIVE), "done": ["done"], "failed": ["failed"], "ended": ["cancelled", "expired"]}


@page
async def show_transfers(visit: Visit) -> Response:
    """Newest first."""
    return visit.render("transfers.html", **await _listed(visit))


@page
async def show_rows(visit: Visit) -> Response:
    """The rows alone, for the script that keeps the table up to date."""
    listed = await _listed(visit)
    return visit.fragment("transfer_rows.html", 200 if listed["is_live"] else STOP_ASKING, **listed)


@page
async def show_transfer(visit: Visit) -> Response:
    """All of one."""
    return visit.render("transfer.html", **await _one(visit))


@page
async def show_now(visit: Visit) -> Response:
    """What changes on its page, for the script that keeps it up to date."""
    shown = await _one(visit)
    return visit.fragment("transfer_now.html", 200 if shown["is_live"] else STOP_ASKING, **shown)


@action(TRANSFERS)
async def cancel(visit: Visit) -> Response:
    """In any state."""
    await visit.api("DELETE", _api_path(visit))
    visit.say("It is cancelled; what was made for it is going away.")
    return visit.go(_page_path(visit))


@action(TRANSFERS)
async def retry(visit: Visit) -> Response:
    """Goes on from what is staged."""
    await visit.api("POST", f"{_api_path(visit)}/retry")
    visit.say("It goes on from where it was.")
    return visit.go(_page_path(visit))


@action(TRANSFERS)
async def stop(visit: Visit) -> Response:
    """For now: what has arrived stays, and a retry goes on."""
    await visit.api("POST", f"{_api_path(visit)}/stop")
    visit.say("It is stopped. Retry goes on from where it was.")
    return visit.go(_page_path(visit))


@action(TRANSFERS)
async def finish(visit: Visit) -> Response:
    """The person has the file: the staged copy may go."""
    await visit.api("POST", f"{_api_path(visit)}/finish")
    visit.say("Done. The staged copy is removed.")
    return visit.go(_page_path(visit))


@action(TRANSFERS)
async def fetch_file(visit: Visit) -> Response:
    """To the store, by a fresh link."""
    signed = await visit.api("GET", f"{_api_path(visit)}/download-url")
    return visit.go(signed["downloadUrl"])


@action(TRANSFERS)
async def share(visit: Visit) -> Response:
    """The link itself, for somebody who has no account here. Whoever has it has the file, until it ends."""
    question: Params = {"ttlSeconds": _seconds_until(visit, visit.form.get("until", ""))}
    signed = await visit.api("GET", f"{_api_path(visit)}/download-url", params=question)
    transfer = await visit.api("GET", _api_path(visit))
    return visit.render(
        "share.html",
        transfer=transfer,
        name=roads.title_of(transfer),
        link=signed["downloadUrl"],
        ends=moment_of(signed["expiresAt"]),
    )


def _seconds_until(visit: Visit, day: str) -> int | None:
    """To the end of that day; None where none is said. Raises ApiRefusal for what is no day to come."""
    if not day:
        return None
    ends = end_of_day(day)
    seconds = (ends - visit.portal.now()).total_seconds() if ends is not None else 0
    if seconds < SHORTEST_LINK_SECONDS:
        raise ApiRefusal(422, "validation_error", "A link ends with a day that is not over yet; write it as 2030-12-31.")
    # What is longer than a link may live, the API makes shorter, and the page says when it ends.
    return min(int(seconds), LONGEST_LINK_SECONDS)


async def _listed(visit: Visit) -> dict[str, Any]:
    chosen = visit.query.get("show", "")
    question = {
        "state": _STATES.get(chosen),
        "limit": PAGE_TRANSFERS,
        "after": visit.query.get("after") or None,
        # Administrators see everybody's in the list of theirs; here are one's own.
        "owner": visit.me["user"],
    }
    found = await visit.api("GET", "/transfers", params=question)
    return {
        "transfers": found["transfers"],
        "next_page": found["next"],
        "chosen": chosen if chosen in CHOICES else "",
        "choices": CHOICES,
        "after": visit.query.get("after", ""),
        "is_live": any(transfer["state"] not in roads.ENDS for transfer in found["transfers"]),
        "roads": roads,
        "names": await names_of(visit, found["transfers"]),
    }


async def _one(visit: Visit) -> dict[str, Any]:
    transfer = await visit.api("GET", _api_path(visit))
    state = transfer["state"]
    is_download = transfer["direction"] == "download"
    where = transfer["path"] if transfer["operation"] != "rm" else parent_of(transfer["path"])
    names = await names_of(visit, [transfer])
    check = await _network_check(visit, transfer)
    return {
        "transfer": transfer,
        "way": way_between(check["check"]) if check else None,
        "rates": rate_bars(check["rates"]) if check else None,
        "name": roads.title_of(transfer),
        "kind": roads.direction_words(transfer),
        "words": roads.state_words(transfer),
        "steps": roads.steps(transfer),
        "legs": roads.legs(transfer, names),
        "names": names,
        "roads": roads,
        "advice": roads.advice(transfer),
        "is_live": state not in roads.ENDS,
        "is_ready": is_download and state == "staged",
        "can_cancel": state not in roads.ENDS and state != "cancelling",
        "can_retry": state == "failed" and transfer["retryUntil"] is not None,
        "is_kept": state == "failed" and transfer["retryUntil"] is not None,
        "can_stop": roads.may_stop(transfer),
        # A node's disk is nobody's to look at.
        "folder": None if is_node(transfer["system"]) else address_of(transfer["system"], parent_of(where)),
        "is_mine": transfer["owner"] == visit.me["user"],
    }


async def _network_check(visit: Visit, transfer: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was found of the way between two nodes, where one was looked at."""
    if not (roads.is_relay(transfer) and is_node(transfer["system"]) and is_node(transfer["source"]["system"])):
        return None
    try:
        found: dict[str, Any] = await visit.api("GET", f"/transfers/{transfer['id']}/network-check")
    except ApiRefusal as refusal:
        if refusal.status == 401:
            raise
        # The page has more to show, and to do, than this.
        return None
    return found


def _api_path(visit: Visit) -> str:
    return f"/transfers/{visit.part('transfer_id')}"


def _page_path(visit: Visit) -> str:
    return f"{TRANSFERS}/{visit.part('transfer_id')}"


routes = [
    Route(TRANSFERS, show_transfers),
    Route(f"{TRANSFERS}/rows", show_rows),
    Route(ONE, show_transfer),
    Route(f"{ONE}/now", show_now),
    Route(f"{ONE}/cancel", cancel, methods=["POST"]),
    Route(f"{ONE}/retry", retry, methods=["POST"]),
    Route(f"{ONE}/stop", stop, methods=["POST"]),
    Route(f"{ONE}/finish", finish, methods=["POST"]),
    Route(f"{ONE}/file", fetch_file),
    Route(f"{ONE}/share", share, methods=["POST"]),
]
