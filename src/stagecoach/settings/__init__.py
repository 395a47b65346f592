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
from stagecoach.core.parts import MAX_PART_SIZE_BYTES, MEBIBYTE, MIN_PART_SIZE_BYTES
from stagecoach.core.polling import QUESTIONS_AN_ASK
from stagecoach.settings.identity import AccountSettings, AuthSettings, IssuerSettings, PersonalTokenSettings
from stagecoach.settings.portal import PortalSection, PortalSettings
from stagecoach.settings.systems import MAX_URL_TTL_SECONDS, SystemSettings
from stagecoach.settings.values import HttpUrlText, IpNetworkText, Secret, Section, WebOrigin
from stagecoach.settings.webhooks import EventSettings, WebhookSettings


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


class BucketLifecycleSettings(Section):
    """How long the store keeps what nobody cleaned: the net under the worker's own clean-up."""

    days: int = Field(
        10,
        ge=1,
        le=3650,
        description="Days until a staged object expires; the worker removes it then, the bucket's rule is the net.",
    )
    abort_incomplete_multipart_days: int = Field(
        7, ge=1, le=3650, description="Days until the store aborts a multipart upload that was never completed."
    )


class S3Settings(Section):
    """The S3 store that data is staged in."""

    private_url: HttpUrlText = Field(
        "http://127.0.0.1:7480",
        description="How this service reaches the store; jobs too, unless their system has an s3_url.",
    )
    public_url: HttpUrlText | None = Field(None, description="How clients outside reach the same store; private_url when unset.")
    region: str = Field("us-east-1", pattern=r"^[a-zA-Z0-9-]{1,64}$", description="Region used in signatures.")
    access_key_id: Secret = Field(SecretStr(""), description="Access key of the service account; a value or secret_file:/path.")
    secret_access_key: Secret = Field(
        SecretStr(""), description="Secret key of the service account; a value or secret_file:/path."
    )
    tenant: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]{1,64}$",
        description="Ceph tenant that owns the buckets, written tenant:bucket in requests.",
    )
    ttl_seconds: int = Field(
        24 * 3600,
        alias="ttl",
        ge=60,
        le=MAX_URL_TTL_SECONDS,
        description="Seconds a presigned URL given to a client lives; S3 allows seven days at most.",
    )
    max_part_size_bytes: int = Field(
        1024 * MEBIBYTE,
        alias="max_part_size",
        ge=MIN_PART_SIZE_BYTES,
        le=MAX_PART_SIZE_BYTES,
        description="Largest part, in bytes, between 5 MiB and 5 GiB; with 10,000 parts it bounds the largest file.",
    )
    min_part_size_bytes: int = Field(
        8 * MEBIBYTE,
        alias="min_part_size",
        ge=MIN_PART_SIZE_BYTES,
        le=MAX_PART_SIZE_BYTES,
        description=(
            "Smallest part, in bytes, that a file is cut into; grows with the file, so that it never has more than 10,000."
        ),
    )
    bucket_lifecycle_configuration: BucketLifecycleSettings = Field(
        default_factory=BucketLifecycleSettings, description="Rules kept on every bucket, existing ones too."
    )
    bucket_prefix: str = Field(
        "stagecoach-",
        pattern=r"^([a-z0-9][a-z0-9-]{0,30})?$",
        description=(
            "Beginning of every bucket's name; the rest is made from the user's name. Two services with one S3 account "
            "must have different ones."
        ),
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Web origins whose pages may send parts straight to the store, e.g. https://portal.example.org."
    )
    request_timeout_seconds: float = Field(
        20.0, gt=0, le=600, description="Seconds one call of this service to the store may take."
    )
    max_staged_bytes_per_user: int | None = Field(
        None, ge=1, description="Quota: bytes of one user's transfers that may be in the store at once; unset, no quota."
    )
    max_staged_bytes: int | None = Field(
        None, ge=1, description="Bytes of all transfers that may be in the store at once; unset, what the store holds."
    )

    @property
    def client_url(self) -> str:
        """The URL that clients' presigned URLs are made for."""
        return self.public_url or self.private_url

    @property
    def object_life_seconds(self) -> int:
        """How long a staged object is kept."""
        return self.bucket_lifecycle_configuration.days * 24 * 3600


class WorkerSettings(Section):
    """How the worker keeps transfers moving."""

    run_in_api: bool = Field(
        True, description="Whether the API process runs a worker too; false where `stagecoach work` runs on its own."
    )
    poll_min_seconds: float = Field(0.5, gt=0, le=60, description="Shortest time between two looks at one transfer.")
    poll_max_seconds: float = Field(
        300.0,
        gt=0,
        le=3600,
        description=(
            "Longest time between two looks at a transfer in which nothing happens; it grows to a tenth of the quiet time, "
            "and a job is asked about every 30 seconds at least."
        ),
    )
    scheduler_asks_per_minute: int = Field(
        12,
        ge=QUESTIONS_AN_ASK,
        le=600,
        description=(
            "Questions (squeue, sacct) about the state of jobs that one system's Slurm gets in any minute, by all workers "
            "together, however many jobs there are."
        ),
    )
    lease_seconds: float = Field(
        30.0, ge=5, le=3600, description="How long a worker owns the transfers it took; another takes over after that."
    )
    batch_size: int = Field(100, ge=1, le=10000, description="Transfers a worker takes at once.")
    job_lost_seconds: float = Field(
        120.0,
        ge=5,
        description="How long a job may be unknown to queue, accounting and store before its transfer fails.",
    )
    max_resubmissions: int = Field(
        3,
        ge=0,
        le=100,
        description="How often another job goes on where one ended for a reason that passes (its node failed, it was preempted).",
    )
    preparing_seconds: float = Field(
        180.0, ge=10, description="How old a transfer may be whose request never ended; it is cleaned up then."
    )
    keep_ended_days: float = Field(
        90.0, ge=0, description="Days an ended transfer and its history are remembered after nothing is left of it; 0, for ever."
    )


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
