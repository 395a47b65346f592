"""Which paths a transfer may name. Pure: what is on the disk is looked at later, on the cluster, as the user."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from stagecoach.core.errors import PathRefused

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095


def checked_path(path: str, roots: Sequence[str], *, any_bytes: bool = False) -> str:
    """``path`` when it is absolute, plain and inside one of ``roots``.

    A name may hold anything POSIX lets it hold (spaces, quotes, ``$``, newlines); only NUL, ``..``, lone surrogates and
    over-long names are refused. Repeated and trailing slashes and ``.`` are folded away. With ``any_bytes`` surrogate
    escapes stand for bytes that are not UTF-8.

    Raises:
        PathRefused: with a sentence that says what is wrong.
    """
    if not path:
        raise PathRefused("The path is empty.")
    if "\0" in path:
        raise PathRefused("The path has a NUL character, which no file name can hold.")
    try:
        encoded = path.encode("utf-8", "surrogateescape" if any_bytes else "strict")
    except UnicodeEncodeError as error:
        raise PathRefused("The path is not valid Unicode, so it cannot be carried unchanged.") from error
    if not path.startswith("/"):
        raise PathRefused("The path is relative; give an absolute path, beginning with '/'.")
    if ".." in path.split("/"):
        raise PathRefused("The path has '..' in it; give the path it stands for.")
    if len(encoded) > MAX_PATH_BYTES:
        raise PathRefused(f"The path has {len(encoded)} bytes; the limit is {MAX_PATH_BYTES}.")
    for name in encoded.split(b"/"):
        if len(name) > MAX_NAME_BYTES:
            raise PathRefused(f"A name in the path has {len(name)} bytes; the limit is {MAX_NAME_BYTES}.")
    plain = posixpath.normpath("/" + path.lstrip("/"))
    require_inside(plain, roots)
    return plain


def checked_file_path(path: str, roots: Sequence[str]) -> str:
    """As :func:`checked_path`, and it names a file: no trailing slash, not a root itself."""
    if path.endswith(("/", "/.")):
        raise PathRefused("The path ends with '/', which names a directory; give the path of the file.")
    plain = checked_path(path, roots)
    if plain in {posixpath.normpath(root) for root in roots}:
        raise PathRefused("The path is a whole file system; give the path of a file in it.")
    return plain


def checked_directory_path(path: str, roots: Sequence[str]) -> str:
    """As :func:`checked_path`, and it is below a root: a whole file system is never made anew."""
    plain = checked_path(path, roots)
    if plain in {posixpath.normpath(root) for root in roots}:
        raise PathRefused("The path is a whole file system; give the path of a directory in it.")
    return plain


def is_inside(path: str, roots: Sequence[str]) -> bool:
    """Whether normalised ``path`` is one of ``roots`` or below one."""
    for root in roots:
        plain_root = posixpath.normpath(root)
        if plain_root == "/" or path == plain_root or path.startswith(plain_root + "/"):
            return True
    return False


def require_inside(path: str, roots: Sequence[str]) -> None:
    """Raises PathRefused, naming the roots, when ``path`` is in none of them."""
    if not is_inside(path, roots):
        raise PathRefused(
            "The path is outside this system's file systems (" + ", ".join(roots) + ").", data={"roots": list(roots)}
        )


def expanded_roots(patterns: Sequence[str], username: str) -> tuple[str, ...]:
    """Roots with ``{user}`` filled in. A user name with a slash or dots never widens a root."""
    if "/" in username or username in {"", ".", ".."} or "\0" in username:
        return tuple(pattern for pattern in patterns if "{user}" not in pattern)
    return tuple(pattern.replace("{user}", username) for pattern in patterns)
