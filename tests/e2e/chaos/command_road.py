"""Scheduler commands that stop at gates: scripts in the place of the real ones, which they run in between."""

from __future__ import annotations

import contextlib
import shutil
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.chaos.gates import Gates

GATED = ("sbatch", "scontrol", "scancel")
UNCHANGED = ("squeue", "sacct", "srun")

SCRIPT = """\
#!/bin/bash
# Says what it is about to do, and what it has done, and goes on when it may. Nobody there to ask: it goes on.
tell() { (exec 9<>/dev/tcp/127.0.0.1/%(port)d && printf '%%s\\n' "$*" >&9 && read -r -u 9 _) 2>/dev/null; }
errors=$(mktemp -p %(folder)s) || exit 99
tell before %(name)s "$@"
answer=$(%(real)s "$@" 2>"$errors")
status=$?
tell after %(name)s "$@"
[ -z "$answer" ] || printf '%%s\\n' "$answer"
cat "$errors" >&2
rm -f "$errors"
exit $status
"""


@contextlib.contextmanager
def gated_commands(folder: Path, gates: Gates) -> Iterator[Path]:
    """A directory to be ``scheduler.binaries``, which every user may read."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            words = self.rfile.readline().decode().split()
            if len(words) < 2:
                return
            phase, name, *arguments = words
            what = f"scontrol {arguments[0]}" if name == "scontrol" and arguments else name
            job_id = arguments[-1] if arguments and arguments[-1].isdigit() else None
            gates.passing("command", what, "before" if phase == "before" else "after", " ".join(arguments), job_id)
            with contextlib.suppress(OSError):  # its connection may have been what was killed
                self.wfile.write(b"go\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    binaries, scratch = folder / "bin", folder / "scratch"
    binaries.mkdir(parents=True)
    scratch.mkdir()
    scratch.chmod(0o1777)
    try:
        for name in (*GATED, *UNCHANGED):
            real = shutil.which(name)
            assert real is not None, name
            if name in UNCHANGED:
                (binaries / name).symlink_to(real)
                continue
            script = SCRIPT % {"port": server.server_address[1], "folder": scratch, "name": name, "real": real}
            (binaries / name).write_text(script)
            (binaries / name).chmod(0o755)
        yield binaries
    finally:
        gates.open_all()
        server.shutdown()
        server.server_close()
        shutil.rmtree(folder)
