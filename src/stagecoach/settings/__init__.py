"""Every setting, a section per room. Settings describe; they hold no connection and never change. What
administrators change while the service runs lies over them (``settings/run_time.py``).

They come from one YAML file (``--settings`` or ``STAGECOACH_SETTINGS``), overlaid by the environment
(``STAGECOACH_S3__PUBLIC_URL=…``). A secret may be given as ``secret_file:/path/of/the/secret``. The sentences under the
fields are the manual: ``deploy/settings.example.yaml`` is made from them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as EnvironmentNotRead

from stagecoach.core.errors import SettingsError
from stagecoach.core.parts import MEBIBYTE
from stagecoach.settings.identity import AccountSettings, AuthSettings, IssuerSettings, PersonalTokenSettings
from stagecoach.settings.nodes import NodeSettings
from stagecoach.settings.portal import PortalSection, PortalSettings
from stagecoach.settings.s3 import S3Settings
from stagecoach.settings.systems import MAX_URL_TTL_SECONDS, SystemSettings
from stagecoach.settings.values import IpNetworkText, Secret, Section, WebOrigin
from stagecoach.settings.webhooks import EventSettings, WebhookSettings
from stagecoach.settings.worker import WorkerSettings


class ServerSettings(Section):
    """Where the API listens."""

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8080, ge=1, le=65535, description="Port the API listens on.")
    max_requests_per_minute_per_user: int = Field(
        1200,
        ge=0,
        le=1_000_000,
        description=(
            "Requests of one user in a minute that each API process answers, and of one address without a valid token; "
            "more get 429. 0: no limit."
        ),
    )
    head_timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="Seconds in which the head of a request must arrive; the connection is closed then."
    )
    body_timeout_seconds: float = Field(
        60.0, gt=0, le=600, description="Seconds in which the body of a request must arrive; more get 408."
    )
    max_direct_file_bytes: int = Field(
        5 * MEBIBYTE,
        ge=MEBIBYTE,
        le=1024 * MEBIBYTE,
        description=(
            "Largest file that ops/upload takes and ops/download gives; larger ones go by transfers. FirecREST's "
            "max_ops_file_size; its client sends what is below 1 MiB directly, whatever this is."
        ),
    )
    max_view_bytes: int = Field(
        64 * MEBIBYTE, ge=MEBIBYTE, le=1024 * MEBIBYTE, description="Most text that one view, head or tail of a file gives."
    )
    cors_origins: tuple[WebOrigin, ...] = Field(
        (), description="Web origins whose pages may call this API with a token, e.g. https://portal.example.org."
    )
    trusted_proxies: tuple[IpNetworkText, ...] = Field(
        ("127.0.0.1",),
        description="Addresses or networks of proxies in front, whose X-Forwarded-For and X-Forwarded-Proto are believed.",
    )


class DatabaseSettings(Section):
    """Where transfers are remembered."""

    url: Secret = Field(
        SecretStr("sqlite+aiosqlite:///stagecoach.db"),
        description=(
            "SQLAlchemy URL: postgresql+psycopg://user:password@host/name or sqlite+aiosqlite:///file. May "
            "be a secret_file reference."
        ),
    )
    pool_size: int = Field(10, ge=1, le=200, description="Connections each process keeps to PostgreSQL.")

    @field_validator("url")
    @classmethod
    def _known_driver(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql+psycopg://", "sqlite+aiosqlite://")):
            raise ValueError("must begin with postgresql+psycopg:// or sqlite+aiosqlite://")
        try:
            parts = urlsplit(value.get_secret_value())
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError("its port is no number between 1 and 65535")
        if parts.netloc.count("@") > 1:
            # What is behind the first one would be taken for the host, and be named in the log.
            raise ValueError("an '@' in its password is written %40")
        return value


class AuditLogSettings(Section):
    """The record of who did what."""

    keep_days: float = Field(
        0.0,
        ge=0,
        description=(
            "Days a line of the audit log is kept; the worker removes older ones, and nothing else ever changes or removes "
            "one. 0: for ever."
        ),
    )


class LogSettings(Section):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe messages that are written.")
    json_lines: bool = Field(False, description="One JSON object a line instead of text for people.")


def _with_one_name_each(values: dict[str, Any]) -> dict[str, Any]:
    """``ttl_seconds`` is ``ttl``: by one name, so that the environment overlays the file."""
    s3 = values.get("s3")
    if not isinstance(s3, dict):
        return values
    names = {name: field.alias for name, field in S3Settings.model_fields.items() if field.alias}
    return {**values, "s3": {names.get(key, key): value for key, value in s3.items()}}


class _Environment(EnvSettingsSource):
    def __call__(self) -> dict[str, Any]:
        return _with_one_name_each(super().__call__())


class Settings(BaseSettings):
    """All of it."""

    model_config = SettingsConfigDict(
        env_prefix="STAGECOACH_", env_nested_delimiter="__", frozen=True, extra="forbid", populate_by_name=True
    )

    server: ServerSettings = Field(default_factory=lambda: ServerSettings(), description="Where the API listens.")
    database: DatabaseSettings = Field(default_factory=lambda: DatabaseSettings(), description="Where transfers are remembered.")
    s3: S3Settings = Field(default_factory=lambda: S3Settings(), description="The S3 store that data is staged in.")
    systems: tuple[SystemSettings, ...] = Field((), description="Clusters that transfers go to and come from.")
    auth: AuthSettings = Field(default_factory=lambda: AuthSettings(), description="Whose tokens are believed.")
    accounts: AccountSettings = Field(
        default_factory=lambda: AccountSettings(), description="Accounts of this service's own, beside those of the issuers."
    )
    personal_tokens: PersonalTokenSettings = Field(
        default_factory=lambda: PersonalTokenSettings(), description="Tokens that people make for their programs."
    )
    portal: PortalSection = Field(default_factory=lambda: PortalSettings(), description="The pages in the browser.")
    worker: WorkerSettings = Field(default_factory=lambda: WorkerSettings(), description="How the worker keeps transfers moving.")
    events: EventSettings = Field(default_factory=lambda: EventSettings(), description="Streams of a transfer's events.")
    nodes: NodeSettings = Field(default_factory=lambda: NodeSettings(), description="Data transfer nodes that users register.")
    webhooks: WebhookSettings = Field(
        default_factory=lambda: WebhookSettings(), description="Changes of state, posted to hosts of the users' choice."
    )
    audit_log: AuditLogSettings = Field(default_factory=lambda: AuditLogSettings(), description="The record of who did what.")
    log: LogSettings = Field(default_factory=lambda: LogSettings(), description="What is logged.")

    @field_validator("systems")
    @classmethod
    def _names_differ(cls, value: tuple[SystemSettings, ...]) -> tuple[SystemSettings, ...]:
        names = [system.name for system in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two systems are named {name!r}")
        return value

    @model_validator(mode="after")
    def _uploads_outlive_no_rule(self) -> Settings:
        require_uploads_outlive_no_rule(self)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment overlays the file, whose content arrives as the constructor's arguments."""
        return (_Environment(settings_cls), init_settings)


def require_uploads_outlive_no_rule(settings: Settings) -> None:
    """Raises ValueError where a system lets an upload take longer than the store keeps one."""
    kept_seconds = settings.s3.bucket_lifecycle_configuration.abort_incomplete_multipart_days * 24 * 3600
    for system in settings.systems:
        if system.limits.upload_seconds > kept_seconds:
            raise ValueError(
                f"systems.{system.name}.limits.upload_seconds: is longer than the store keeps an incomplete upload "
                "(s3.bucket_lifecycle_configuration.abort_incomplete_multipart_days)"
            )


def load_settings(path: Path | None = None) -> Settings:
    """Read the file (``path``, or ``STAGECOACH_SETTINGS``) and the environment.

    Raises:
        SettingsError: one line that names the setting and what is wrong with it.
    """
    chosen = path or (Path(os.environ["STAGECOACH_SETTINGS"]) if os.environ.get("STAGECOACH_SETTINGS") else None)
    values: dict[str, Any] = {}
    if chosen is not None:
        try:
            loaded = yaml.safe_load(chosen.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"settings: {chosen}: cannot be read ({error.strerror}).") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" at line {where.line + 1}" if where is not None else ""
            raise SettingsError(f"settings: {chosen}: not valid YAML{line}.") from error
        if loaded is not None and not (isinstance(loaded, dict) and all(isinstance(name, str) for name in loaded)):
            raise SettingsError(f"settings: {chosen}: must hold sections such as 's3:' and 'systems:'.")
        values = loaded or {}
    return settings_from(values)


def settings_from(values: dict[str, Any]) -> Settings:
    """Settings from a mapping of sections, overlaid by the environment. Raises SettingsError."""
    try:
        return Settings(**_with_one_name_each(values))
    except EnvironmentNotRead as error:
        # The library names the field in quotes; its cause may show the value, which could be a secret.
        found = re.search(r'field "(\w+)"', str(error))
        name = found[1] if found else "environment"
        raise SettingsError(
            f"settings: {name}: STAGECOACH_{name.upper()} or a variable below it must hold JSON, like '{{…}}' or '[…]'."
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(piece) for piece in first["loc"]) or "systems"
        problem = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            problem = "there is no such setting"
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise SettingsError(f"settings: {name}: {problem}{more}.") from error


__all__ = [
    "MAX_URL_TTL_SECONDS",
    "AccountSettings",
    "AuthSettings",
    "IssuerSettings",
    "LogSettings",
    "PersonalTokenSettings",
    "S3Settings",
    "ServerSettings",
    "Settings",
    "SystemSettings",
    "load_settings",
    "settings_from",
]
