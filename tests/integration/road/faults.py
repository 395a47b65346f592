"""Everything that was seen to go wrong on the road to a store, each as something that a proxy can do to a request."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from tests.integration.road.fault_proxy import PIECE_BYTES, Answer, ProxyHandler

Fault = Callable[[ProxyHandler], None]
ERROR_BODY = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code><Message>{}</Message></Error>"


def _in_the_middle(end: Fault) -> Fault:
    """Half of the body passes, then ``end``."""

    def fault(handler: ProxyHandler) -> None:
        if handler.is_put:
            handler.read_body(handler.length // 2)
        else:
            answer = handler.ask_store(b"")
            handler.give(answer, len(answer.body) // 2, len(answer.body))
        end(handler)

    return fault


def _at_the_end(end: Fault) -> Fault:
    """The whole body passes, then ``end``. The store gets nothing of a put."""

    def fault(handler: ProxyHandler) -> None:
        if handler.is_put:
            handler.read_body()
        else:
            handler.give(handler.ask_store(b""))
        end(handler)

    return fault


def _body_is(change: Callable[[bytes], bytes]) -> Fault:
    """The body becomes another one on its way, under a Content-Length that fits."""

    def fault(handler: ProxyHandler) -> None:
        if handler.is_put:
            handler.give(handler.ask_store(change(handler.read_body())))
        else:
            answer = handler.ask_store(b"")
            handler.give(answer._replace(body=change(answer.body)))

    return fault


def _flip(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0x10]) + body[middle + 1 :]


def _says(status: int, code: str = "", message: str = "", early: bool = False, **headers: str) -> Fault:
    """An answer instead of the store's; ``early``: in the middle of the request's body, hanging up."""

    def fault(handler: ProxyHandler) -> None:
        handler.read_body(handler.length // 2 if early else None)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = ERROR_BODY.format(code, message).encode() if code else b""
        handler.give(Answer(status, named, b"" if handler.command == "HEAD" else body))
        if early and handler.is_put:
            handler.connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while handler.rfile.read(PIECE_BYTES):
                    pass
            handler.close_connection = True

    return fault


def _answer_lost(handler: ProxyHandler) -> None:
    handler.ask_store(handler.read_body())
    handler.reset()


def _answered_twice(handler: ProxyHandler) -> None:
    answer = handler.ask_store(handler.read_body())
    handler.give(answer)
    handler.drain()
    handler.give(answer)
    handler.drain()


def _held_back(handler: ProxyHandler) -> None:
    """The mover hears nothing and asks again; what it asked first reaches the store after that was answered."""
    with handler.proxy.holding_back() as wait_for_the_next_answer:
        body = handler.read_body()
        handler.stay_silent()
        wait_for_the_next_answer()
        handler.ask_store(body)


def _hangs_up_after_the_answer(handler: ProxyHandler) -> None:
    handler.give(handler.ask_store(handler.read_body()))
    handler.hang_up()


def _whole_object(handler: ProxyHandler) -> None:
    answer = handler.ask_store(b"", without_range=True)
    handler.give(answer._replace(status=200))


def _wrong_content_range(handler: ProxyHandler) -> None:
    answer = handler.ask_store(b"")
    first, last = map(int, handler.headers["Range"].split("=")[1].split("-"))
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-range"}
    handler.give(answer._replace(headers={**headers, "Content-Range": f"bytes {first + 1}-{last + 1}/*"}))


def _chunked(handler: ProxyHandler) -> None:
    handler.give(handler.ask_store(b""), length="chunked")


def _chunked_and_cut(handler: ProxyHandler) -> None:
    answer = handler.ask_store(b"")
    handler.give(answer, len(answer.body) // 2, "chunked")
    handler.hang_up()


def _name_gone(handler: ProxyHandler) -> None:
    handler.proxy.lookups_to_fail = 1
    handler.reset()


def _name_gone_for_ever(handler: ProxyHandler) -> None:
    handler.proxy.lookups_to_fail = float("inf")
    handler.reset()


FAULTS: dict[str, Fault] = {
    "reset-before-body": ProxyHandler.reset,
    "reset-within-body": _in_the_middle(ProxyHandler.reset),
    "reset-after-body": _at_the_end(ProxyHandler.reset),
    "stall-before-body": ProxyHandler.stay_silent,
    "stall-within-body": _in_the_middle(ProxyHandler.stay_silent),
    "stall-after-body": _at_the_end(ProxyHandler.stay_silent),
    "cut-short": _in_the_middle(ProxyHandler.hang_up),
    "shorter-body": _body_is(lambda body: body[: len(body) // 2]),
    "longer-body": _body_is(lambda body: body + b"more"),
    "flipped-byte": _body_is(_flip),
    "shifted-body": _body_is(lambda body: body[1:] + body[:1]),
    "500": _says(500, "InternalError", "We encountered an internal error. Please try again."),
    "500-early": _says(500, "InternalError", early=True),
    "503": _says(503),
    "SlowDown": _says(503, "SlowDown", "Please reduce your request rate."),
    "503-Retry-After": _says(503, "ServiceUnavailable", Retry_After="7"),
    "429": _says(429),
    "429-Retry-After": _says(429, Retry_After="7"),
    "200-with-error": _says(200, "InternalError", "We encountered an internal error. Please try again."),
    "expired": _says(403, "AccessDenied", "Request has expired"),
    "whole-object": _whole_object,
    "wrong-Content-Range": _wrong_content_range,
    "chunked": _chunked,
    "chunked-and-cut": _chunked_and_cut,
    "answer-lost": _answer_lost,
    "answered-twice": _answered_twice,
    "held-back": _held_back,
    "hangs-up-after-answer": _hangs_up_after_the_answer,
    "name-gone": _name_gone,
    "name-gone-for-ever": _name_gone_for_ever,
    "proxy-502": _says(502),
    "proxy-407": _says(407, Proxy_Authenticate='Basic realm="proxy"'),
}
