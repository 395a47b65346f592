"""The staging job's script. It holds nothing of the user's: no path, no name, no URL. All that is in the ticket."""

from __future__ import annotations

import base64
from collections.abc import Mapping

MOVER_FILE = "stagecoach_mover.py"
SCRIPT_FILE = "job.sh"
OUTPUT_FILE = "output.log"
ERROR_FILE = "error.log"


def job_script(kind: str, directory: str, python: str, environment: Mapping[str, str]) -> bytes:
    """A bash script that runs the mover (``kind``: fetch or put) on what lies in ``directory``.

    Directory and variables travel in base64, so no character of theirs is ever read by the shell. The trailing dot
    keeps newlines at the end, which ``$( )`` would eat.
    """
    if kind not in {"fetch", "put"}:
        raise ValueError(kind)
    lines = [
        "#!/bin/bash",
        "# A Stagecoach staging job. Everything it needs lies in its directory; its receipt says how it ended.",
        "set -u",
        'decode() { printf %s "$1" | base64 -d; printf .; }',
        f"directory=$(decode {_encoded(directory)}); "
        'cd -- "${directory%.}" || { echo "stagecoach: the job directory is gone or not reachable from this node" >&2; exit 1; }',
    ]
    # After the directory is entered: a variable of the same name, or PATH, then disturbs nothing above.
    for name, text in environment.items():
        lines.append(f'{name}=$(decode {_encoded(text)}); export {name}="${{{name}%.}}"')
    lines += [
        f"if ! command -v {python} >/dev/null; then",
        f'  echo "stagecoach: no {python} on node $(hostname); ask the administrators to set systems.python" >&2; exit 127',
        "fi",
        f"exec {python} ./{MOVER_FILE} {kind} --ticket-url-file ./ticket-url --state-directory .",
        "",
    ]
    return "\n".join(lines).encode()


def _encoded(text: str) -> str:
    # An empty word would vanish; quotes keep it. The base64 alphabet itself needs none.
    return f"'{base64.b64encode(text.encode('utf-8', 'surrogateescape')).decode()}'"
