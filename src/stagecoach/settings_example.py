"""Writes ``deploy/settings.example.yaml`` from the settings' own fields and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from stagecoach.settings import Settings

# Values that show what a centre would write, where a default would say nothing.
_EXAMPLES: Mapping[str, Any] = {
    "server.cors_origins": ["https://portal.example.org"],
    "database.url": "secret_file:/run/secrets/stagecoach-database-url",
    "s3.private_url": "https://s3.internal.example.org",
    "s3.public_url": "https://s3.example.org",
    "s3.access_key_id": "secret_file:/run/secrets/s3-access-key-id",
    "s3.secret_access_key": "secret_file:/run/secrets/s3-secret-access-key",
    "s3.cors_origins": ["https://transfer.example.org"],
    "systems.name": "alps",
    "systems.ssh.host": "login.alps.example.org",
    "systems.ssh.host_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrIWFdTDIZS3I0vDcYMlqFsxK9nwmBbIIVQbqnjEfWx"],
    "systems.ssh.proxy_jump.host": "gateway.example.org",
    "systems.ssh.proxy_jump.host_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrIWFdTDIZS3I0vDcYMlqFsxK9nwmBbIIVQbqnjEfWx"],
    "systems.ssh.credentials.key_file": "/etc/stagecoach/keys/{user}",
    "systems.ssh.credentials.certificate_file": "/etc/stagecoach/keys/{user}-cert.pub",
    "systems.ssh.credentials.certificate_authority.key_file": "/etc/stagecoach/ssh-user-ca",
    "systems.ssh.credentials.certificate_authority.signing_service_url": "https://signer.example.org/v1/sign",
    "systems.ssh.credentials.certificate_authority.signing_service_token": "secret_file:/run/secrets/signing-service-token",
    "systems.ssh.credentials.certificate_authority.signing_service_ca_file": "/etc/ssl/certs/site-ca.pem",
    "systems.ssh.credentials.service_account.username": "stagecoach",
    "systems.scheduler.rest.url": "https://slurm.example.org:6820",
    "systems.scheduler.rest.jwt_key_file": "/etc/stagecoach/slurm-jwt-key",
    "systems.directives": ["--partition=xfer", "--account={account}", "--time=12:00:00"],
    "systems.environment": {"https_proxy": "http://proxy.example.org:3128"},
    "systems.file_systems.path": "/scratch/{user}",
    "systems.s3_url": "https://s3.internal.example.org",
    "auth.issuers.issuer": "https://sso.example.org/realms/hpc",
    "auth.issuers.audience": "stagecoach",
    "auth.issuers.user_names": "site",
    "auth.issuers.client_id": "stagecoach-cli",
    "portal.url": "https://transfer.example.org",
}
# Left out by default: shown, but commented out.
_OPTIONAL = {
    "s3.tenant": "hpc",
    "s3.max_staged_bytes_per_user": 50 * 1024**4,
    "s3.max_staged_bytes": 500 * 1024**4,
    "systems.disabled_reason": "Maintenance until Tuesday, 12:00.",
    "systems.ssh.proxy_jump": None,
    "systems.ssh.credentials.certificate_file": None,
    "systems.ssh.credentials.service_account": None,
    "systems.scheduler.binaries": "/opt/slurm/bin",
    "systems.scheduler.ask_as": "stagecoach",
    "systems.probing.ask_as": "stagecoach",
    "systems.scheduler.rest": None,
    "systems.scheduler.state_directory": "/var/lib/stagecoach/jobs",
    "systems.mover_concurrency": 8,
    "systems.parallel": None,
    "systems.limits.max_file_size_bytes": 2 * 1024**4,
    "systems.environment": None,
    "auth.issuers.jwks": "https://sso.example.org/realms/hpc/protocol/openid-connect/certs",
    "auth.issuers.portal_client_id": "stagecoach-portal",
    "auth.issuers.portal_client_secret": "secret_file:/run/secrets/portal-client-secret",
    "auth.issuers.label_for_people": "Your institution",
    "portal.cookie_key": "secret_file:/run/secrets/portal-cookie-key",
    "nodes.sealing_key": "secret_file:/run/secrets/nodes-sealing-key",
    "portal.support": "Questions? Write to help@example.org.",
    "webhooks.allowed_hosts": ["hooks.example.org", "*.portal.example.org"],
    "webhooks.signing_secret": "secret_file:/run/secrets/stagecoach-webhook-secret",
}
# What cannot stand beside the others: shown, behind two marks, so that one may take all single ones away.
_ALTERNATIVES = frozenset({"systems.ssh.credentials.certificate_authority"})
WIDTH = 110


def example_text() -> str:
    """The whole file."""
    lines = [
        "# Stagecoach's settings: every field with its sentence. A secret may be written as secret_file:/path.",
        "# What stands behind '##' is an alternative to what is beside it.",
        "# The environment overlays this file: STAGECOACH_S3__PUBLIC_URL=https://… sets s3.public_url.",
        "# Made by 'stagecoach settings-example'.",
        "",
    ]
    lines += _section(Settings, "", 0)
    return "\n".join(lines).rstrip() + "\n"


def _section(model: type[BaseModel], prefix: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        key = field.alias or name
        for line in _wrapped(field.description or "", WIDTH - len(indent)):
            yield f"{indent}# {line}"
        mark = "##" if path in _ALTERNATIVES else "#" if path in _OPTIONAL else ""
        inner, is_list = _inner_model(field)
        if inner is not None and is_list:
            yield f"{indent}{key}:"
            yield from _list_item(inner, path, depth + 1)
        elif inner is not None:
            block = [f"{indent}{key}:", *_section(inner, path + ".", depth + 1)]
            yield from (_commented(line, mark) for line in block)
        else:
            value = _EXAMPLES.get(path, _OPTIONAL.get(path, _plain_default(field)))
            text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
            line = f"{indent}{key}: {text.removesuffix('...' + chr(10)).strip()}"
            yield _commented(line, mark)
        if depth == 0:
            yield ""


def _list_item(model: type[BaseModel], path: str, depth: int) -> Iterator[str]:
    """The one example of a list, its dash before the first key."""
    dash_due = True
    for line in _section(model, path + ".", depth + 1):
        if dash_due and not line.lstrip().startswith("#"):
            position = 2 * (depth + 1)
            line = line[: position - 2] + "- " + line[position:]
            dash_due = False
        yield line


def _commented(line: str, mark: str) -> str:
    stripped = line.lstrip()
    return line if stripped.startswith("#") else line[: len(line) - len(stripped)] + mark + stripped


def _inner_model(field: FieldInfo) -> tuple[type[BaseModel] | None, bool]:
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument, getattr(annotation, "__origin__", None) is tuple
    return None, False


def _plain_default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    return list(default) if isinstance(default, tuple) else default


def _wrapped(text: str, width: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
    if line:
        yield line
