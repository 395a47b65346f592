"""FirecREST v2's shapes for files on a system.

A path that is not UTF-8 is told in base64, by the key with ``Base64`` at its end, which then stands in for the other.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, ConfigDict, Field

from stagecoach.core.errors import InvalidRequest
from stagecoach.core.file_commands import Compression
from stagecoach.wire.firecrest import PathText
from stagecoach.wire.shapes import Shape


class File(Shape):
    """One line of a listing."""

    name: str = Field(
        description=(
            "Relative to the listed directory (`sub/x` when recursive); for a file, its path. A byte that is not UTF-8 is "
            "shown as U+FFFD."
        )
    )
    type: str = Field(description="As `ls` shows it: one of - d l b c p s.")
    link_target: str | None = Field(None, description="The text of a symbolic link.")
    user: str = Field(description="Name of the owner; the number, as text, where it has none.")
    group: str
    permissions: str = Field(description="rwxr-xr-x, with s, S, t and T as `ls` shows them.")
    last_modified: str = Field(description="YYYY-MM-DDTHH:MM:SS, UTC.")
    size: str = Field(description="Bytes, decimal.")
    name_base64: str | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="The exact bytes of `name`, only where they are not UTF-8.",
    )


class ListingAnswer(Shape):
    """All that the directory holds, in the order of its bytes, each directory before what is in it."""

    output: list[File]


class FileAnswer(Shape):
    """The file as it is afterwards; its name is the path."""

    output: File


class FileContent(Shape):
    """A part of a file as text: bytes that are not UTF-8 are shown as U+FFFD."""

    content: str
    content_type: Literal["bytes", "lines"]
    start_position: int = Field(description="Negative: counted from the end.")
    end_position: int = Field(description="Negative: counted from the end.")


class ContentAnswer(Shape):
    """What ``head`` and ``tail`` answer."""

    output: FileContent


class TextAnswer(Shape):
    """One text."""

    output: str


class Checksum(Shape):
    """Of a whole file."""

    algorithm: Literal["SHA256"] = "SHA256"
    checksum: str = Field(description="64 hexadecimal digits.")


class ChecksumAnswer(Shape):
    """What ``checksum`` answers."""

    output: Checksum


class FileStat(Shape):
    """As the system call stat says it; ``mode`` with the bits of the type, times in seconds since 1970."""

    mode: int
    ino: int
    dev: int
    nlink: int
    uid: int
    gid: int
    size: int
    atime: int
    ctime: int
    mtime: int


class StatAnswer(Shape):
    """What ``stat`` answers."""

    output: FileStat


def _decodable(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("must be base64") from error
    return value


PathBase64 = Annotated[
    str,
    Field(min_length=1, max_length=5464, description="Ours. The exact bytes of the path, where they are not UTF-8."),
    AfterValidator(_decodable),
]
AccountName = Annotated[
    str,
    Field(
        max_length=64,
        pattern=r"^([A-Za-z0-9_.][A-Za-z0-9_.@-]{0,63})?$",
        description='Name or number; "" or null leaves what is.',
    ),
]


def exact(text: str | None, encoded: str | None, name: str) -> str:
    """The path that a request means, with surrogate escapes. Raises InvalidRequest where it says none, or two."""
    if (text is None) == (encoded is None):
        raise InvalidRequest(f"Give {name}, or {name}Base64, and not both.")
    return text if text is not None else base64.b64decode(encoded or "").decode("utf-8", "surrogateescape")


class OnePath(Shape):
    """What is done is done to this."""

    path: PathText | None = Field(
        None, validation_alias=AliasChoices("path", "sourcePath", "source_path"), description="Absolute; also `sourcePath`."
    )
    path_base64: PathBase64 | None = Field(
        None, validation_alias=AliasChoices("pathBase64", "sourcePathBase64", "path_base64", "source_path_base64")
    )

    @property
    def exact_path(self) -> str:
        """Raises InvalidRequest."""
        return exact(self.path, self.path_base64, "path")


class TwoPaths(OnePath):
    """What is done leads from one to the other."""

    target_path: PathText | None = Field(None, description="Absolute.")
    target_path_base64: PathBase64 | None = None

    @property
    def exact_target(self) -> str:
        """Raises InvalidRequest."""
        return exact(self.target_path, self.target_path_base64, "targetPath")


class ChmodRequest(OnePath):
    """The mode, octal."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "/home/alice/file", "mode": "700"}]})

    mode: str = Field(pattern=r"^[0-7]{1,5}$", description="Octal, such as 640 or 02770.")


class ChownRequest(OnePath):
    """At least one of the two."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "/home/alice/file", "owner": "alice", "group": ""}]})

    owner: AccountName | None = None
    group: AccountName | None = None


class SymlinkRequest(OnePath):
    """``path`` is what the link leads to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "/home/alice/file", "linkPath": "/home/alice/link"}]})

    link_path: PathText | None = Field(None, description="Absolute: where the link is made.")
    link_path_base64: PathBase64 | None = None

    @property
    def exact_link(self) -> str:
        """Raises InvalidRequest."""
        return exact(self.link_path, self.link_path_base64, "linkPath")


class MkdirRequest(OnePath):
    """A new directory."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "/home/alice/new", "parent": False}]})

    parent: bool = Field(False, description="Make what is missing above it as well; then one that exists is fine.")


class CompressRequest(TwoPaths):
    """``path`` and all below it, into the archive ``targetPath``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"path": "/home/alice/results", "targetPath": "/home/alice/results.tar.gz", "compression": "gzip"}]
        }
    )

    compression: Compression = Compression.GZIP
    dereference: bool = Field(False, description="What symbolic links lead to, not the links.")
    match_pattern: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        pattern=r"^[^\x00]*$",
        description=(
            "Only the regular files whose whole name, as `find` prints it from the directory of `path` on (`./name/x`), "
            "matches this regular expression (GNU find's default syntax, emacs)."
        ),
    )


class ExtractRequest(TwoPaths):
    """The archive ``path``, into the directory ``targetPath``, which exists."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"path": "/home/alice/results.tar.gz", "targetPath": "/home/alice/out", "compression": "gzip"}]
        }
    )

    compression: Compression = Compression.GZIP
