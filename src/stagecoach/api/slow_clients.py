"""The web server's HTTP, for clients that send slowly or badly: a connection is not kept for what may never come.

The web server bounds only how long a connection is idle between two requests. Bodies that are read are bounded by the gate.
"""

from __future__ import annotations

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from stagecoach.api.problems import NOT_HTTP


def bounded_http(head_timeout_seconds: float) -> type[H11Protocol]:
    """HTTP/1.1 in which the head of a request, or the rest of a body that nobody reads, takes no longer than this."""

    class BoundedHttp(H11Protocol):
        """One connection."""

        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Called by the event loop, as all below."""
            super().connection_made(transport)
            self._look()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._look()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """What came is not HTTP; our own body instead of the web server's text."""
            body = json.dumps(NOT_HTTP).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
            events = [h11.Response(status_code=400, headers=headers, reason=b"Bad Request"), h11.Data(body), h11.EndOfMessage()]
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _look(self) -> None:
            """The clock runs from when a head, or a body behind its answer, is waited for until it has come."""
            state = self.conn.their_state
            is_answered = self.cycle is not None and self.cycle.response_complete
            if state is h11.IDLE or (state is h11.SEND_BODY and is_answered):
                if self._clock is None:
                    self._clock = self.loop.call_later(head_timeout_seconds, self.transport.close)
            else:
                self._stop()

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

    return BoundedHttp
