"""Commands that act in a directory which is still the one that was decided upon, as lists of words. Pure.

A resolved path may have become another by the time a command uses it: somebody who may write above put a link in the
way. So a fixed script enters the directory first, compares where it stands with the path, and only then runs what acts,
by names that begin there; whatever is renamed later, it stays in that directory. Paths are parameters of the scripts and
never part of their text.

What is left: the file systems' own programs go further down by themselves (``rm`` and ``tar`` by open directories,
following no link); only what an archive brings into directories that stood there before is moved by name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from stagecoach.core.errors import SystemUnavailable

REPLACED = "was replaced by something else meanwhile; nothing was changed"
MOUNT_POINT = "is where another file system is mounted; it is not removed"
CLASH = "is a directory on one side and none on the other; nothing was changed"
LINKS_MARK = "stagecoach-links"
ODD_KIND = "is a device, a pipe or a socket; nothing was unpacked"

# Each script is one line without "!": a login shell that is no POSIX shell (csh) must carry it through its quotes.
_ANCHORED = (
    'directory=$1; shift; cd -P -- "$directory" || exit; '
    'here=$(env pwd -P && echo .); there=$(printf "%s\\n." "$directory"); '
    f'[ "$here" = "$there" ] || {{ printf "%s {REPLACED}\\n" "$directory" >&2; exit 1; }}; '
    'exec "$@"'
)
# A directory of the user's own may be closed even to the user.
_REMOVE_FUNCTION = (
    'remove() { rm -r -f --one-file-system -- "$1" 2>/dev/null && return; '
    'find "$1" -xdev -type d -not -perm -0700 -exec chmod u+rwx -- {} ";" 2>/dev/null; '
    'rm -r -f --one-file-system -- "$1"; }; '
)
_REMOVE = (
    _REMOVE_FUNCTION + '[ -e "$1" ] || [ -L "$1" ] || exit 0; '
    f'[ "$(stat -c %d .)" = "$(stat -c %d -- "$1")" ] || {{ printf "%s {MOUNT_POINT}\\n" "$1" >&2; exit 1; }}; '
    'remove "$1"'
)
# The trap of EXIT runs where one of a signal has ended the script.
_WHOLE_OR_NOT = (
    'hidden=$1 names=$2 path=$3; shift 3; trap \'rm -f -- "$hidden" "$names"\' EXIT; trap "exit 143" HUP TERM; '
    'if [ -e "$names" ]; then exec <"$names"; fi; '
    'set -C; "$@" >"$hidden" && mv -f -T -- "$hidden" "$path"'
)
_READING = 'exec <"$1" || exit; shift; exec "$@"'
# What start files print comes before the mark.
_LINKS = f'printf "{LINKS_MARK}\\0"; exec find -L "$1" -xtype l -exec realpath -z -- {{}} +'
_CLASH_FUNCTION = f'clash() {{ printf "%s {CLASH}\\n" "$1" >&2; exit 1; }}; '
# A directory that may not be written gets no new parent, so it may while it moves.
_PLACE_FUNCTIONS = (
    'place() { [ "$how" = trial ] || mv -f -t "$to" -- "$@"; }; '
    'place_closed() { [ "$how" = trial ] && return; '
    'mode=$(stat -c %a -- "$1") && chmod u+w -- "$1" && mv -f -T -- "$1" "$2" && chmod "$mode" -- "$2"; }; '
)
# In parentheses, for variables of its own.
_MERGE_FUNCTION = (
    "merge() ( how=$1 from=$2 to=$3; set --; "
    'if [ -w "$to" ] && [ -x "$to" ]; then :; else printf "%s: Permission denied\\n" "$to" >&2; exit 1; fi; '
    # Never the directory itself nor the one above, which ".*" may name: that would lead out.
    'for one in "$from"/* "$from"/.*; do case "${one##*/}" in .|..) continue ;; esac; '
    '[ -e "$one" ] || [ -L "$one" ] || continue; '
    "there=$to/${one##*/}; "
    # Only files, directories and links are left to meet.
    'if [ -L "$one" ] || [ -f "$one" ]; then '
    'if [ -L "$there" ]; then :; elif [ -d "$there" ]; then clash "$there"; fi; '
    "else "
    'if [ -L "$there" ]; then clash "$there"; fi; '
    'if [ -d "$there" ]; then chmod u+rwx -- "$one" && merge "$how" "$one" "$there" || exit; continue; fi; '
    'if [ -e "$there" ]; then clash "$there"; fi; '
    'if [ -w "$one" ]; then :; else place_closed "$one" "$there" || exit; continue; fi; '
    "fi; "
    'set -- "$@" "$one"; '
    'if [ $# -ge 100 ]; then place "$@" || exit; set --; fi; '
    "done; "
    'if [ $# -gt 0 ]; then place "$@"; fi ); '
)
# What an archive holds is made apart, where no link stands yet, and joins the directory when it is known that all of it can.
_EXTRACT = (
    _REMOVE_FUNCTION
    + _CLASH_FUNCTION
    + _PLACE_FUNCTIONS
    + _MERGE_FUNCTION
    + 'new=$1; shift; trap \'remove "$new"\' EXIT; trap "exit 143" HUP TERM; '
    'mkdir -m 0700 -- "$new" || exit; "$@" --directory "$new" || exit; chmod 0700 -- "$new" || exit; '
    'odd=$(find "$new" -not -type f -not -type d -not -type l -print -quit 2>/dev/null); '
    f'[ -z "$odd" ] || {{ printf "%s {ODD_KIND}\\n" "$odd" >&2; exit 1; }}; '
    'merge trial "$new" . && merge really "$new" .'
)


def anchored(directory: str, words: Sequence[str]) -> list[str]:
    """``words``, run in a directory whose path is resolved, and not at all where that leads elsewhere by now."""
    return ["sh", "-c", _ANCHORED, "sh", directory, *words]


def name_in(path: str) -> tuple[str, str]:
    """The directory of a resolved path, and the path as it is seen from there: no name is taken for an option."""
    directory, name = posixpath.split(path)
    return directory, f"./{name}"


def remove(path: str) -> list[str]:
    """Also what is closed to its owner. Refuses a mount point, and leaves what is mounted below with an error."""
    directory, name = name_in(path)
    return anchored(directory, ["sh", "-c", _REMOVE, "sh", name])


def links_below(directory: str, name: str) -> list[str]:
    """Prints, each ended by NUL, where the links at and below ``name`` lead in the end, and those below what they lead to."""
    return anchored(directory, ["sh", "-c", _LINKS, "sh", name])


def links_in(stdout: str) -> list[str]:
    """Read from what :func:`links_below` prints."""
    _, mark, rest = stdout.partition(f"{LINKS_MARK}\0")
    if not mark:
        raise SystemUnavailable("find on the system gave no answer that can be read.")
    return [path for path in rest.split("\0") if path]


def whole_or_not(words: Sequence[str], path: str, hidden: str, names: str) -> list[str]:
    """What ``words`` print, as the file ``path``; if they fail or are ended, no file at all.

    ``hidden`` and ``names`` are plain names beside it. The second is given to ``words`` to read if it is there, and goes
    either way. One command, so that nothing is left on the system where the service dies while it runs.
    """
    directory, name = name_in(path)
    return anchored(directory, ["sh", "-c", _WHOLE_OR_NOT, "sh", f"./{hidden}", f"./{names}", name, *words])


def extract(words: Sequence[str], archive: str, directory: str, hidden: str) -> list[str]:
    """``words``, which unpack what they read into the directory that they are told last, and then all of it into ``directory``.

    Nothing is written through a link that stands there, or that the archive brings; a failure before the last step
    leaves nothing. ``hidden`` is a plain name below it.
    """
    unpacking = anchored(directory, ["sh", "-c", _EXTRACT, "sh", f"./{hidden}", *words])
    above, name = name_in(archive)
    return anchored(above, ["sh", "-c", _READING, "sh", name, *unpacking])
