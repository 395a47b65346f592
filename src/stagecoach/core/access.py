"""Who is asking, and what that lets them see."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A person whose token held. ``username`` is the Unix user on the clusters."""

    username: str
    is_admin: bool = False

    def may_see(self, owner: str) -> bool:
        """Whether this caller may know that something of ``owner`` exists."""
        return self.is_admin or owner == self.username
