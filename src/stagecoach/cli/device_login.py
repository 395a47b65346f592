"""Logs a person in by the device grant (RFC 8628): a code to type in any browser, and patience until that is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stagecoach.cli.provider import GrantRefused, LogInFailed, Metadata, Tokens, post, tokens_in
from stagecoach.client.errors import ServiceError

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
USUAL_INTERVAL_SECONDS, LEAST_INTERVAL_SECONDS, MOST_INTERVAL_SECONDS = 5.0, 1.0, 60.0
SLOW_DOWN_SECONDS = 5.0
USUAL_LIFE_SECONDS, MOST_LIFE_SECONDS = 600.0, 3600.0


@dataclass(frozen=True)
class Prompt:
    """What the person must do. ``complete_url`` has the code in it already."""

    url: str
    code: str
    complete_url: str | None


def log_in_by_device(
    metadata: Metadata,
    client_id: str,
    scopes: str,
    show: Callable[[Prompt], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Tokens:
    """Waits until the person has agreed. Raises LogInFailed, ServiceError; Ctrl-C ends it at any moment."""
    if metadata.device_endpoint is None:
        raise LogInFailed("The identity provider has no log-in for programs (no device grant); bring a token: --token-file.")
    try:
        begun = post(metadata.device_endpoint, {"client_id": client_id, "scope": scopes})
    except GrantRefused as refused:
        raise LogInFailed(f"The identity provider does not let this program log in ({_known(refused.error)}).") from None
    device_code = begun.get("device_code")
    if not isinstance(device_code, str):
        raise LogInFailed("The identity provider's answer holds no code.")
    show(_prompt(begun))
    ends = monotonic() + _seconds(begun.get("expires_in"), USUAL_LIFE_SECONDS, 1.0, MOST_LIFE_SECONDS)
    interval = _seconds(begun.get("interval"), USUAL_INTERVAL_SECONDS, LEAST_INTERVAL_SECONDS, MOST_INTERVAL_SECONDS)
    form = {"grant_type": DEVICE_GRANT, "device_code": device_code, "client_id": client_id}
    while monotonic() + interval < ends:
        sleep(interval)
        try:
            return tokens_in(post(metadata.token_endpoint, form))
        except GrantRefused as refused:
            if refused.error == "slow_down":
                interval += SLOW_DOWN_SECONDS
            elif refused.error == "access_denied":
                raise LogInFailed("The log-in was refused in the browser.") from None
            elif refused.error == "expired_token":
                break
            elif refused.error != "authorization_pending":
                raise LogInFailed(f"The identity provider ended the log-in ({_known(refused.error)}).") from None
        except ServiceError:
            # It may be back before the code is too old.
            interval = min(2 * interval, MOST_INTERVAL_SECONDS)
    raise LogInFailed("The code is too old by now; log in again.")


def _prompt(begun: dict[str, Any]) -> Prompt:
    url, code, complete = begun.get("verification_uri"), begun.get("user_code"), begun.get("verification_uri_complete")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")) or not isinstance(code, str):
        raise LogInFailed("The identity provider's answer holds no page to log in at.")
    return Prompt(url, code, complete if isinstance(complete, str) and complete.startswith(("https://", "http://")) else None)


def _seconds(value: object, usual: float, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return usual
    return float(min(max(value, least), most))


def _known(error: str) -> str:
    return error if error.replace("_", "").isalnum() and error.isascii() else "for a reason of its own"
