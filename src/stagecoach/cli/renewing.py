"""Keeps a log-in's access token fresh: renewed when it runs out, by one of the person's processes for all of them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from stagecoach.cli.config import Access, config_file, save_access, stored_access
from stagecoach.cli.provider import GrantRefused, post, tokens_in
from stagecoach.client.errors import ServiceError

# Renewed so long before its end, for the way to the service and clocks that differ.
MARGIN_SECONDS = 30.0


class FreshToken:
    """Asked by the client for each request, and again with a token that the service refused."""

    def __init__(self, access: Access, clock: Callable[[], float] = time.time) -> None:
        self._access = access
        self._clock = clock
        self._renewing = asyncio.Lock()

    async def __call__(self, refused: str | None = None) -> str:
        """A token that holds. Raises ServiceError: the log-in has ended, or the provider is not there."""
        if self._is_good(self._access, refused):
            return self._access.token or ""
        async with self._renewing:
            if not self._is_good(self._access, refused):
                # In a thread, which Ctrl-C does not stop: a refresh token that was used must not be lost before the new
                # one is kept.
                self._access = await asyncio.to_thread(self._renewed, refused)
        return self._access.token or ""

    def _is_good(self, access: Access, refused: str | None) -> bool:
        lives = access.renewal is None or self._clock() < access.renewal.expires_at - MARGIN_SECONDS
        return lives and access.token != refused

    def _renewed(self, refused: str | None) -> Access:
        with _only_one():
            stored = stored_access()
            if stored is not None and stored.url == self._access.url and stored.renewal is not None:
                if self._is_good(stored, refused):
                    return stored
                current = stored
            else:
                current = self._access
            renewed = renew(current, self._clock())
            # Another log-in, or a log-out, of this moment is not to be undone.
            if stored is not None and stored.url == self._access.url and stored.renewal is not None:
                save_access(renewed)
            return renewed


def renew(access: Access, now: float) -> Access:
    """With a new token. Raises ServiceError."""
    renewal = access.renewal
    if renewal is None:
        return access
    form = {"grant_type": "refresh_token", "refresh_token": renewal.refresh_token, "client_id": renewal.client_id}
    try:
        tokens = tokens_in(post(renewal.token_endpoint, form))
    except GrantRefused:
        raise ServiceError(401, "not_authenticated", "Your log-in has ended.") from None
    kept = replace(renewal, refresh_token=tokens.refresh_token or renewal.refresh_token, expires_at=now + tokens.lives_seconds)
    return replace(access, token=tokens.access_token, renewal=kept)


@contextmanager
def _only_one() -> Iterator[None]:
    """Many providers take a refresh token once only, so two processes must not use it at once."""
    path = config_file().with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
