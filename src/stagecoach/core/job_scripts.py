"""The staging job's script. It holds nothing of the user's: no path, no name, no URL. All that is in the ticket."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

MOVER_FILE = "stagecoach_mover.py"
OPERATIONS_FILE = "stagecoach_operations.py"
OPERATION_FILES = (
    OPERATIONS_FILE,
    "stagecoach_archiving.py",
    "stagecoach_copying.py",
    "stagecoach_merging.py",
    "stagecoach_removing.py",
    "stagecoach_work.py",
)
TICKET_FILE = "ticket.json"
RECEIPT_FILE = "receipt.json"
PROGRESS_FILE = "progress.json"
SCRIPT_FILE = "job.sh"
OUTPUT_FILE = "output.log"
ERROR_FILE = "error.log"
OUR_WORDS = "stagecoach: "
"""How a line begins in which the script itself says why it cannot go on."""


@dataclass(frozen=True, slots=True)
class TaskLayout:
    """How many of a job's tasks stand where; one on one node when nothing is said."""

    nodes: int = 1
    tasks_per_node: int = 1

    @property
    def tasks(self) -> int:
        """All of them."""
        return self.nodes * self.tasks_per_node


ONE_TASK = TaskLayout()


def job_script(
    kind: str, directory: str, python: str, environment: Mapping[str, str], *, several_tasks: bool = False, srun: str = "srun"
) -> bytes:
    """A bash script that runs the mover (``kind``: fetch, put, or operate) on what lies in ``directory``.

    ``several_tasks``: as many times as the job has tasks, through ``srun`` where that is to be found, else through the
    one on PATH. How many there are only the job itself says: settings may have changed since it was submitted.

    Directory and variables travel in base64, so no character of theirs is ever read by the shell. The trailing dot
    keeps newlines at the end, which ``$( )`` would eat.
    """
    if kind not in {"fetch", "put", "operate"}:
        raise ValueError(kind)
    lines = [
        "#!/bin/bash",
        "# A Stagecoach staging job. Everything it needs lies in its directory; its receipt says how it ended.",
        "set -u",
        'decode() { printf %s "$1" | base64 -d; printf .; }',
        f"directory=$(decode {_encoded(directory)}); "
        'cd -- "${directory%.}" || '
        f'{{ echo "{OUR_WORDS}the job directory is gone or not reachable from this node" >&2; exit 1; }}',
    ]
    # After the directory is entered: a variable of the same name, or PATH, then disturbs nothing above.
    for name, text in environment.items():
        lines.append(f'{name}=$(decode {_encoded(text)}); export {name}="${{{name}%.}}"')
    # Nothing of the user's environment or packages gets into it.
    isolated = f"{python} -I -S"
    lines += [
        f"if ! {isolated} -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; then",
        f'  echo "{OUR_WORDS}no {python} of version 3.6 or newer on node $(hostname); '
        'ask the administrators to set systems.python" >&2; exit 127',
        "fi",
    ]
    mover = f"exec {isolated} ./{MOVER_FILE} {kind} --ticket-url-file ./ticket-url --state-directory ."
    if kind == "operate":
        mover = f"exec {isolated} ./{OPERATIONS_FILE} --ticket ./{TICKET_FILE} --state-directory ."
    if several_tasks:
        lines += _several_tasks(mover, srun)
    lines += [mover, ""]
    return "\n".join(lines).encode()


def _several_tasks(mover: str, srun: str) -> list[str]:
    """Lines that start this script again in each task: every node then looks for directory and Python itself.

    Positional parameters hold what is needed: no variable of the environment has such a name. ``--wait=0`` and
    ``--mpi=none`` stand against sites' defaults: an early end of one task is no fault here, and there is no MPI.
    """
    return [
        'if [ "${1:-}" = task ]; then',
        f'  {mover} --task "$SLURM_PROCID" --tasks "$SLURM_NTASKS" --run "$2"',
        "fi",
        'if [ "${SLURM_NTASKS:-1}" -gt 1 ]; then',
        f'  set -- "$(decode {_encoded(srun)})"; set -- "${{1%.}}"',
        '  command -v -- "$1" >/dev/null || set -- srun',
        '  if command -v -- "$1" >/dev/null; then',
        '    set -- "$1" "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}.$$.$RANDOM"',
        "    # srun does not take it over from sbatch by itself any more.",
        '    [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
        '    exec "$1" --ntasks="$SLURM_NTASKS" --kill-on-bad-exit=1 --wait=0 --mpi=none --input=none --export=ALL \\',
        f'      bash "$PWD/{SCRIPT_FILE}" task "$2"',
        "  fi",
        '  echo "note: no srun on node $(hostname); one task moves all (see scheduler.binaries)" >&2',
        "fi",
    ]


def _encoded(text: str) -> str:
    # An empty word would vanish; quotes keep it. The base64 alphabet itself needs none.
    return f"'{base64.b64encode(text.encode('utf-8', 'surrogateescape')).decode()}'"
