"""Settings of the portal, the pages in the browser."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from stagecoach.settings.identity import AuthSettings
from stagecoach.settings.values import Secret, Section, WebOrigin

MIN_KEY_LENGTH = 32


class PortalSettings(Section):
    """The pages in the browser."""

    enabled: bool = Field(False, description="Whether the API process serves the portal too, below /portal.")
    title: str = Field("Stagecoach", min_length=1, max_length=60, description="Name of the service on every page.")
    url: WebOrigin | None = Field(
        None,
        description=(
            "Where browsers find this service, e.g. https://transfer.example.org. Needed for logging in with an identity "
            "provider, which sends people back there; it belongs into s3.cors_origins as well, so that pages may upload."
        ),
    )
    cookie_key: Secret | None = Field(
        None,
        description=(
            "What the cookies of people who are signed in are encrypted with: 32 random characters or more, the same in every "
            "replica; a value or secret_file:/path. Unset, each process makes its own, and a restart signs everybody out."
        ),
    )
    support: str | None = Field(
        None, max_length=200, description="A line at the end of every page: whom people can ask, e.g. help@example.org."
    )
    max_preview_bytes: int = Field(
        256 * 1024, ge=1024, le=5 * 1024 * 1024, description="So much of a text file, in bytes, is shown as a preview."
    )

    @field_validator("cookie_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_KEY_LENGTH:
            raise ValueError(f"must have at least {MIN_KEY_LENGTH} characters; `openssl rand -hex 32` makes such a key")
        return value


def _with_place_for_providers(value: PortalSettings, info: ValidationInfo) -> PortalSettings:
    auth = info.data.get("auth")
    names_one = isinstance(auth, AuthSettings) and any(issuer.portal_client_id is not None for issuer in auth.issuers)
    if value.enabled and value.url is None and names_one:
        raise ValueError("url must be set where an issuer has a portal_client_id: it sends people back there")
    return value


PortalSection = Annotated[PortalSettings, AfterValidator(_with_place_for_providers)]
