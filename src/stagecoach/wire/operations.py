"""FirecREST v2's requests for operations that a job does: mv, cp, rm, compress, extract."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field

from stagecoach.core.file_commands import Compression
from stagecoach.wire.firecrest import Account, PathText, WebhookUrl
from stagecoach.wire.shapes import Shape


def _none_is_default(default: object) -> BeforeValidator:
    """Clients send null for what they were not given."""
    return BeforeValidator(lambda value: default if value is None else value)


class OperationBody(Shape):
    """What they have in common."""

    path: PathText = Field(validation_alias=AliasChoices("path", "sourcePath", "source_path"), description="What is worked on.")
    target_path: PathText = Field(validation_alias=AliasChoices("targetPath", "target_path"))
    account: Account = None
    webhook_url: WebhookUrl = None


class MoveRequest(OperationBody):
    """As `mv`: into ``targetPath`` where that is a directory, else to it; an existing file is replaced."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"path": "/scratch/alice/results", "targetPath": "/project/results"}]}
    )


class CopyRequest(OperationBody):
    """As `cp --force --recursive --preserve=all`: into ``targetPath`` where that is a directory, else to it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"path": "/scratch/alice/results", "targetPath": "/project/results"}]}
    )

    dereference: Annotated[bool, _none_is_default(False)] = Field(
        False, description="What symbolic links lead to, not the links."
    )


class CompressJobRequest(OperationBody):
    """``path`` and all below it, into the tar archive ``targetPath``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"path": "/scratch/alice/results", "targetPath": "/project/results.tar.gz"}]}
    )

    dereference: Annotated[bool, _none_is_default(False)] = Field(
        False, description="What symbolic links lead to, not the links."
    )
    compression: Annotated[Compression, _none_is_default(Compression.GZIP)] = Compression.GZIP
    match_pattern: str | None = Field(
        None,
        validation_alias=AliasChoices("matchPattern", "match_pattern"),
        min_length=1,
        max_length=1000,
        pattern=r"^[^\x00]*$",
        description=(
            "Only the regular files whose whole name, as `find` prints it from the directory of `path` on (`./name/x`), "
            "matches this regular expression (GNU find's default syntax, emacs)."
        ),
    )


class ExtractJobRequest(OperationBody):
    """The tar archive ``path``, into the directory ``targetPath``, which exists."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"path": "/project/results.tar.gz", "targetPath": "/scratch/alice/out"}]}
    )

    compression: Annotated[Compression, _none_is_default(Compression.GZIP)] = Compression.GZIP


class RemoveRequest(Shape):
    """What the query of an ``rm`` asks for."""

    path: str
    account: str | None = None
    webhook_url: str | None = None
