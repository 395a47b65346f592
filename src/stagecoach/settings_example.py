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
    "systems.directives": ["--partition=xfer", "--account={account}", "--time=12:00:00"],
    "systems.environment": {"https_proxy": "http://proxy.example.org:3128"},
    "systems.file_systems.path": "/scratch/{user}",
    "systems.s3_url": "https://s3.internal.example.org",
    "auth.jwks": "https://sso.example.org/realms/hpc/protocol/openid-connect/certs",
    "auth.issuer": "https://sso.example.org/realms/hpc",
    "auth.audience": "stagecoach",
}
# Left out by default: shown, but commented out.
_OPTIONAL = {
    "s3.tenant": "hpc",
    "systems.ssh.proxy_jump": None,
    "systems.ssh.credentials.certificate_file": None,
    "systems.scheduler.binaries": "/opt/slurm/bin",
    "systems.scheduler.ask_as": "stagecoach",
    "systems.scheduler.state_directory": "/var/lib/stagecoach/jobs",
    "systems.mover_concurrency": 8,
    "systems.limits.max_file_size_bytes": 2 * 1024**4,
    "systems.environment": None,
}
WIDTH = 110


def example_text() -> str:
    """The whole file."""
    lines = [
        "# Stagecoach's settings: every field with its sentence. A secret may be written as secret_file:/path.",
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
        mark = "#" if path in _OPTIONAL else ""
        inner, is_list = _inner_model(field)
        if inner is not None and is_list:
            yield f"{indent}{key}:"
            yield from _list_item(inner, path, depth + 1)
        elif inner is not None:
            block = [f"{indent}{key}:", *_section(inner, path + ".", depth + 1)]
            yield from (_commented(line) if mark else line for line in block)
        else:
            value = _EXAMPLES.get(path, _OPTIONAL.get(path, _plain_default(field)))
            text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
            line = f"{indent}{key}: {text.removesuffix('...' + chr(10)).strip()}"
            yield _commented(line) if mark else line
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


def _commented(line: str) -> str:
    stripped = line.lstrip()
    return line if stripped.startswith("#") else line[: len(line) - len(stripped)] + "#" + stripped


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
