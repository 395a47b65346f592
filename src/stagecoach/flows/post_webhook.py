"""Posts one message to one webhook: to an address that was looked at, without redirects, reading little of the answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence

import httpx

from stagecoach.core.webhooks import WebhookTarget, is_refused_address

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a host, best first. Raises OSError."""

# An answer's body is of no use to us; this much is read so that the connection ends cleanly.
MAX_ANSWER_BYTES = 16 * 1024


class NotPosted(Exception):
    """No answer was had; the message says why and holds nothing of the URL but its host."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """By the system's own means."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def open_client() -> httpx.AsyncClient:
    """Straight to the receiver: a proxy would look names up itself, so the addresses looked at would not be those used.

    No connection is kept: the library would take one to the same address for another name, whose certificate nobody saw.
    """
    return httpx.AsyncClient(
        verify=ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        limits=httpx.Limits(max_keepalive_connections=0),
    )


async def post_webhook(
    http: httpx.AsyncClient,
    resolve: Resolve,
    target: WebhookTarget,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    timeout_seconds: float,
) -> int:
    """The HTTP status that came within the time. Raises NotPosted."""
    try:
        async with asyncio.timeout(timeout_seconds):
            addresses = await resolve(target.host, target.port)
            usable = [address for address in addresses if not is_refused_address(address)]
            if not usable:
                raise NotPosted(f"{target.authority} has no address that messages may be posted to.")
            for address in usable[:-1]:
                try:
                    return await _post(http, target, address, url, headers, body)
                except httpx.ConnectError:
                    continue
            return await _post(http, target, usable[-1], url, headers, body)
    except TimeoutError:
        raise NotPosted(f"{target.authority} did not answer within {timeout_seconds:g} seconds.") from None
    except (OSError, UnicodeError) as error:
        raise NotPosted(f"{target.authority} could not be found ({type(error).__name__}).") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The library's own text may hold the URL.
        raise NotPosted(f"{target.authority} could not be reached ({type(error).__name__}).") from None


async def _post(
    http: httpx.AsyncClient, target: WebhookTarget, address: str, url: str, headers: Mapping[str, str], body: bytes
) -> int:
    """To that very address; the certificate must be the name's all the same."""
    request = http.build_request(
        "POST",
        httpx.URL(url).copy_with(host=address),
        content=body,
        headers={**headers, "Host": target.authority, "Content-Type": "application/json", "User-Agent": "stagecoach"},
        extensions={"sni_hostname": target.host},
        timeout=None,
    )
    answer = await http.send(request, stream=True)
    try:
        read = 0
        async for piece in answer.aiter_raw():
            read += len(piece)
            if read > MAX_ANSWER_BYTES:
                break
    finally:
        await answer.aclose()
    return answer.status_code
