"""Runs one job of the embedded mode, apart from the service: started by file name, standard library only.

    python -I local_job.py JOB_DIRECTORY LOCK_FD

It leaves the service's session, so that neither the service's end nor its restart touches the job. Everybody learns
from files how the job stands: ``started`` (who runs it), ``exit`` (how it ended), and the lock behind LOCK_FD, which the
kernel frees when the last process of the job is gone, whatever became of the files.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0


def write_whole(path: str, content: dict[str, Any]) -> None:
    """All of it or nothing, also when the machine stops in between."""
    beside = f"{path}.{os.getpid()}.new"
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)


def main(job_directory: str, lock_fd: int) -> int:
    """Fork, and come back as soon as it is written down that the job has started."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return 0 if os.read(reading, 1) else 1
    os.close(reading)
    os.setsid()
    # A handler and not SIG_IGN, which the script would inherit: a signal to the group is for the script.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    write_whole(os.path.join(job_directory, "started"), {"pid": os.getpid(), "time": time.time()})
    os.write(writing, b"1")
    os.close(writing)
    ending = _run(job_directory, lock_fd)
    write_whole(os.path.join(job_directory, "exit"), {**ending, "time": time.time()})
    # Like Slurm: what the script left behind ends with it, and so do we.
    os.killpg(0, signal.SIGKILL)
    return 0


def _run(job_directory: str, lock_fd: int) -> dict[str, Any]:
    with open(os.path.join(job_directory, "request"), encoding="utf-8") as file:
        request = json.load(file)
    cancelled = os.path.join(job_directory, "cancelled")
    script = os.path.join(job_directory, "script")
    try:
        with open(script, "rb") as text:
            # The interpreter is called by name: a file that was just written can be "busy", or lie where nothing may run.
            interpreter = os.fsdecode(text.readline()[2:]).split(None, 1)
        with open(request["output_path"], "ab") as output, open(request["error_path"], "ab") as errors:
            process = subprocess.Popen(
                [word.strip() for word in interpreter] + [script],
                cwd=request["directory"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                pass_fds=(lock_fd,),
            )
    except OSError as error:
        return {"code": None, "signal": None, "reason": f"JobLaunchFailure: {error.strerror}", "cancelled": False}
    asked_at: float | None = None
    while True:
        try:
            status = process.wait(POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            pass
        if asked_at is None and os.path.exists(cancelled):
            asked_at = time.monotonic()
            os.killpg(0, signal.SIGTERM)
        if asked_at is not None and time.monotonic() - asked_at > GRACE_SECONDS:
            process.kill()
    ended_by_signal = status < 0
    return {
        "code": None if ended_by_signal else status,
        "signal": -status if ended_by_signal else None,
        "reason": "",
        # A script that did its work although it was asked to stop has done its work.
        "cancelled": status != 0 and os.path.exists(cancelled),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
