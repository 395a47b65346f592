"""Settings of what tells people of a transfer without being asked: webhooks and streams of events."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator, model_validator

from stagecoach.core.webhooks import ALLOWED_HOST, secret_bytes
from stagecoach.settings.values import Secret, Section


class WebhookSettings(Section):
    """To whom changes of state are posted."""

    allowed_hosts: tuple[str, ...] = Field(
        (),
        description=(
            "Hosts that users may have told of their transfers: name, name:port or *.domain (any name below it); "
            "without a port the scheme's own is meant. Empty: no webhooks."
        ),
    )
    signing_secret: Secret = Field(
        SecretStr(""),
        description=(
            "Signs every message (Standard Webhooks): whsec_ and 24 to 64 random bytes in base64; a value or "
            "secret_file:/path. Required where hosts are allowed."
        ),
    )
    timeout_seconds: float = Field(10.0, gt=0, le=60, description="Seconds a receiver may take to answer.")
    max_tries: int = Field(
        10, ge=1, le=30, description="How often a message is tried, with growing pauses; ten tries take most of a day."
    )
    allow_http: bool = Field(False, description="Whether http:// is allowed too; for tests on one machine.")

    @property
    def is_on(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self.allowed_hosts)

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not ALLOWED_HOST.fullmatch(host.lower()):
                raise ValueError("each must be a host, host:port or *.domain, without a scheme or a path")
        return tuple(host.lower() for host in value)

    @model_validator(mode="after")
    def _has_a_secret(self) -> WebhookSettings:
        if self.is_on or self.signing_secret.get_secret_value():
            try:
                secret_bytes(self.signing_secret.get_secret_value())
            except ValueError as error:
                raise ValueError(f"webhooks.signing_secret {error}") from None
        return self


class EventSettings(Section):
    """Streams of events (GET /transfers/{id}/events)."""

    poll_seconds: float = Field(
        1.0, ge=0.05, le=60, description="How often a process looks at all the transfers that somebody watches, at once."
    )
    heartbeat_seconds: float = Field(
        15.0, ge=0.05, le=300, description="Longest silence of a stream, so that proxies between do not end it."
    )
    max_streams_per_user: int = Field(20, ge=1, le=10000, description="Streams one user may have open at each process.")
