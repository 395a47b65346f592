"""The road of service and movers to the real store, with a gate before and after every request."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.e2e.chaos.gates import TRANSFER_ID, Gates
from tests.integration.road.fault_proxy import FaultProxy, ProxyHandler


def action(method: str, target: str, is_service: bool) -> str:
    """What a request to the store is called in tables of faults."""
    where = urlsplit(target)
    name, query = where.path.rsplit("/", 1)[-1], parse_qs(where.query, keep_blank_values=True)
    if name == "data":
        if "partNumber" in query:
            return "put part"
        if "uploadId" in query:
            return {"POST": "complete multipart", "DELETE": "abort multipart", "GET": "list parts"}[method]
        if "uploads" in query:
            return "create multipart"
        return {"HEAD": "look at object", "GET": "get range", "DELETE": "delete object"}.get(method, method)
    if name == "ticket.json":
        return {"PUT": "write ticket", "GET": "read ticket"}.get(method, f"{method} ticket")
    if name == "receipt.json":
        return {"PUT": "write receipt", "GET": "read receipt"}.get(method, f"{method} receipt")
    if "uploads" in query and is_service:
        return "list multiparts"
    return f"{method} {name}"


@dataclass
class StoreRoad(FaultProxy):
    """A proxy that carries everything unchanged, stopping at the gates."""

    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        self.faults = {"gated": self._carry}

    def fault_for(self, method: str, part: int) -> str | None:
        return "gated"

    def _carry(self, handler: ProxyHandler) -> None:
        is_service = "Authorization" in handler.headers
        who, what = ("service" if is_service else "mover"), action(handler.command, handler.path, is_service)
        body = handler.read_body()
        if not self.gates.passing(who, what, "before", handler.path, has_given_up=handler.has_lost_its_client):
            raise ConnectionError("the client hung up")
        answer = handler.ask_store(body)
        if (who, what, answer.status) == ("mover", "write receipt", 200) and (found := TRANSFER_ID.search(handler.path)):
            self.gates.receipt_written(found.group())
        self.gates.passing(who, what, "after", handler.path)
        handler.give(answer)
