"""The command ``check_network``: looks at the ways from this node to the service and to the store, and says what is wrong.

Nothing is sent there but a few small requests without any credential.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stagecoach.agent.journal import Ending
from stagecoach.agent.network_check import Bounds, check_network
from stagecoach.agent.network_probes import Endpoint
from stagecoach.agent.network_report import NetworkReport, Verdict
from stagecoach.agent.threads import in_thread

CHECK_NETWORK = "check_network"
# Whatever is as slow as it may be, as an address after another that does not answer.
MOST_SECONDS = 180.0
SMALL = Bounds(connects=3, round_trips=10, probe_bytes=0)
# What a stranger's answers can make long is cut, so that a report always fits.
_MOST_ADDRESSES = 20
_MOST_WORDS = 500
_MOST_DETAIL = 200
_FAILURES = {
    "port_closed": "{host} answers, but nothing listens at port {port}: the {way} is down, or its address is wrong.",
    "no_answer": "Nobody answers at {host} port {port}: a firewall drops the packets, or the {way} is down. Ask who runs the"
    " firewall of this node to let it connect there.",
    "wrong_certificate": "The certificate that {host} port {port} shows is not believed ({detail}). Where the {way} has an"
    " authority of its own, give its certificates in SSL_CERT_FILE; else somebody may stand between.",
    "request_failed": "{host} accepts the connection but does not answer as the {way} does ({detail}).",
}


class Checker:
    """Of one node. ``server`` is the service's URL; ``places`` are its directories, by the words under which their free
    space is told."""

    def __init__(
        self,
        server: str,
        places: Mapping[str, Path],
        *,
        bounds: Bounds = SMALL,
        most_seconds: float = MOST_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._server = server
        self._places = places
        self._bounds = bounds
        self._most_seconds = most_seconds
        self._now = now

    async def run(self, spec: Mapping[str, Any], stop: asyncio.Event) -> Ending:
        """A good end is one that has found something out, be it bad. Raises nothing of what it finds."""
        looking = asyncio.ensure_future(in_thread(lambda: self._look(spec.get("storeUrl"))))
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({looking, stopped}, timeout=self._most_seconds, return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                return _ending(looking.result())
        finally:
            stopped.cancel()
            looking.cancel()
        if stop.is_set():
            return Ending(143, "interrupted", "The check was stopped.")
        return Ending(1, "check_timeout", f"The check was not done within {self._most_seconds:g} s.")

    def _look(self, store_url: object) -> dict[str, Any]:
        ways = {"service": self._way("service", self._server)}
        if isinstance(store_url, str):
            ways["store"] = self._way("store", store_url)
        return {"ways": ways, "free_bytes": {name: _free_bytes(place) for name, place in self._places.items()}}

    def _way(self, way: str, url: str) -> dict[str, Any]:
        endpoint = _endpoint(url)
        if endpoint is None:
            return _unmeasured(None, None, Verdict("url_wrong", "failure", f"The {way}'s address is no URL with http or https."))
        if _is_proxied(url):
            words = f"The way to the {way} at {endpoint.host} goes by this node's proxy, and the check does not look beyond it."
            return _unmeasured(endpoint.host, endpoint.port, Verdict("proxied", "advice", words))
        report = check_network(endpoint, bounds=self._bounds, now=self._now)
        return _shortened(report, way)


def _endpoint(url: str) -> Endpoint | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        return None
    uses_tls = parts.scheme == "https"
    return Endpoint(parts.hostname, port or (443 if uses_tls else 80), uses_tls=uses_tls)


def _is_proxied(url: str) -> bool:
    """By the environment, as the agent's own requests and the mover's."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    has_one = bool(proxies.get(parts.scheme) or proxies.get("all"))
    return has_one and not urllib.request.proxy_bypass(parts.hostname or "")


def _unmeasured(host: str | None, port: int | None, verdict: Verdict) -> dict[str, Any]:
    reachable = False if verdict.level == "failure" else None
    return {"host": host, "port": port, "reachable": reachable, "verdicts": [asdict(verdict)]}


def _shortened(report: NetworkReport, way: str) -> dict[str, Any]:
    found = bounded(report)
    if report.failure is not None:
        for verdict in found["verdicts"]:
            if verdict["level"] == "failure" and verdict["code"] in _FAILURES:
                words = _FAILURES[verdict["code"]]
                detail = found["failure"]["detail"]
                verdict["words"] = words.format(way=way, host=report.host, port=report.port, detail=detail)[:_MOST_WORDS]
    return found


def bounded(report: NetworkReport) -> dict[str, Any]:
    """As JSON that always fits into a report."""
    found = report.as_json()
    found["addresses"] = report.addresses[:_MOST_ADDRESSES]
    if report.failure is not None:
        found["failure"]["detail"] = report.failure.detail[:_MOST_DETAIL]
    for verdict in found["verdicts"]:
        verdict["words"] = verdict["words"][:_MOST_WORDS]
    return found


def _ending(result: dict[str, Any]) -> Ending:
    verdicts = [verdict for way in result["ways"].values() for verdict in way["verdicts"]]
    for level in ("failure", "warning"):
        for verdict in verdicts:
            if verdict["level"] == level:
                return Ending(0, None, verdict["words"], result)
    return Ending(0, None, "Nothing is wrong on the ways that were looked at.", result)


def _free_bytes(place: Path) -> int | None:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(place).free
    return None
