"""How long to leave a service in peace that does not answer: longer each time, and never all agents at once."""

from __future__ import annotations

from stagecoach.client.asking import Clock

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0


class Backoff:
    """Of one thing that is asked again and again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ceiling = FIRST_SECONDS

    def reset(self) -> None:
        """It went well."""
        self._ceiling = FIRST_SECONDS

    async def pause(self, asked_seconds: float | None = None) -> None:
        """At least as long as the service itself asked for."""
        seconds = self._ceiling * (0.5 + self._clock.chance() / 2)
        self._ceiling = min(self._ceiling * 2, LONGEST_SECONDS)
        await self._clock.sleep(max(seconds, min(asked_seconds or 0.0, 10 * LONGEST_SECONDS)))
