"""What the check of a system asks about the way in: which credential a user's login shows, and whether it opens the door."""

from __future__ import annotations

from typing import Protocol


class Login(Protocol):
    """The way into one system. Raises PermissionRefused, and SystemUnavailable when it cannot be tried."""

    async def show_credential(self, username: str) -> str:
        """What a login for the user would show, in words without a secret; nothing is contacted but who signs it."""

    async def try_login(self, username: str) -> str:
        """Log in, and become the user where a service account does so; in words, who logged in with what."""

    async def knock(self) -> str:
        """That somebody speaks SSH there; nobody logs in."""
