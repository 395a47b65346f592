"""How many requests one user, or one address without a token, may make in a minute of this process.

A moving window of the library ``limits``, over a memory of our own: the library's (5.8) keeps every address that was ever
seen for as long as its window lasts and sets a timer going, with a thread, for each request.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from limits import RateLimitItemPerMinute
from limits.storage import MovingWindowSupport, Storage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from stagecoach.core.addresses import network_of
from stagecoach.core.errors import TooManyRequests

# A window of nobody's is forgotten when a new one comes and so many are there; a million addresses cannot fill the memory.
MAX_WINDOWS = 10_000


class Windows(Storage, MovingWindowSupport):
    """The times of each one's requests, in the order of each one's latest; bounded in number, and without any thread."""

    STORAGE_SCHEME = ["stagecoach-memory"]  # noqa: RUF012 - as the library declares it

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.clock = clock
        self.times: dict[str, deque[float]] = {}

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Whether ``amount`` more fit into the window; if so they are in it."""
        now = self.clock()
        times = self.times.pop(key, None)
        if times is None:
            times = deque()
            self._forget_old(now, expiry)
        self.times[key] = times
        while times and times[0] <= now - expiry:
            times.popleft()
        if len(times) + amount > limit:
            return False
        times.extend([now] * amount)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest in the window came, and how many there are."""
        now = self.clock()
        times = [at for at in self.times.get(key, ()) if at > now - expiry]
        return (times[0] if times else now), len(times)

    def _forget_old(self, now: float, expiry: int) -> None:
        # Those at the front were quiet longest.
        while self.times:
            key = next(iter(self.times))
            latest = self.times[key]
            if len(self.times) < MAX_WINDOWS and latest and latest[-1] > now - expiry:
                return
            del self.times[key]

    # What the library asks of a storage besides; a moving window needs no counters.

    @property
    def base_exceptions(self) -> type[Exception]:
        """What goes wrong in a memory."""
        return MemoryError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Counts as that many requests."""
        self.acquire_entry(key, amount + len(self.times.get(key, ())), expiry, amount)
        return self.get(key)

    def get(self, key: str) -> int:
        """How many are remembered."""
        return len(self.times.get(key, ()))

    def get_expiry(self, key: str) -> float:
        """When the latest came."""
        times = self.times.get(key)
        return times[-1] if times else self.clock()

    def check(self) -> bool:
        """Always there."""
        return True

    def reset(self) -> int:
        """Forgets all; how many there were."""
        count = len(self.times)
        self.times.clear()
        return count

    def clear(self, key: str) -> None:
        """Forgets one."""
        self.times.pop(key, None)


def address_of(request: Request) -> str | None:
    """Where the request came from, by the word of the proxies that the settings trust."""
    return request.client.host if request.client else None


class RequestRate:
    """At most ``max_per_minute`` requests a minute of each caller; 0: as many as they like. A refused one does not count."""

    def __init__(self, max_per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_per_minute = max_per_minute
        self._windows = Windows(clock)
        self._limiter = MovingWindowRateLimiter(self._windows)

    def count_user(self, username: str) -> None:
        """One request of a user's. Raises TooManyRequests."""
        self._count("user", username, "You")

    def count_stranger(self, address: str | None) -> None:
        """One request without a token that holds. Raises TooManyRequests."""
        self._count("address", network_of(address), "Your address, without a valid token,")

    def _count(self, kind: str, who: str, subject: str) -> None:
        if not self._max_per_minute:
            return
        limit = RateLimitItemPerMinute(self._max_per_minute, namespace="requests")
        if self._limiter.hit(limit, kind, who):
            return
        ends_at = self._limiter.get_window_stats(limit, kind, who).reset_time
        seconds = max(1, math.ceil(ends_at - self._windows.clock()))
        raise TooManyRequests(
            f"{subject} made {limit.amount} requests in the last minute, which is this service's limit; "
            f"ask again in {seconds} s, and less often.",
            data={"limit_per_minute": limit.amount, "retry_after_seconds": seconds},
        )
