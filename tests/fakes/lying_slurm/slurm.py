#!/usr/bin/env python3
"""Stands in for Slurm's commands where a test needs them to lie: called as sbatch, squeue, sacct, scontrol or scancel.

State and lies are in ``state.json`` beside it (``cluster.py`` writes both). Words and exit statuses are those recorded
from Slurm 22.05. Standard library only: it runs on the "login node", as the user.
"""

import fcntl
import json
import os
import pwd
import sys
import time
from contextlib import contextmanager
from pathlib import Path

DOWN = "Unable to contact slurm controller (connect failure)"
FROZEN = "Socket timed out on send/recv operation"
MUNGE = "Munge encode failed: Failed to access socket"
DATABASE = "Problem talking to the database: Connection refused"
OPEN_STATES = {"PENDING", "RUNNING", "COMPLETING"}


@contextmanager
def changing(directory):
    """The state, to be changed, while nobody else does."""
    with open(Path(directory, "state.json"), "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        state = json.load(file)
        yield state
        file.seek(0)
        file.truncate()
        json.dump(state, file, indent=1)
        file.flush()


def make_job(state, user, name, held, directory):
    """A new job, in the queue and in accounting."""
    job_id = str(state["next_id"])
    state["next_id"] += 1
    state["jobs"][job_id] = {
        "id": job_id,
        "name": name,
        "user": user,
        "state": "PENDING",
        "reason": "JobHeldUser" if held else "Priority",
        "wait_status": 0,
        "restarts": 0,
        "node": "",
        "submit": int(time.time()),
        "directory": directory,
    }
    state["rows"].append({"id": job_id, "name": name, "user": user, "state": "PENDING", "exit": "0:0", "node": "None assigned"})
    return job_id


def option(name):
    """The value of --name=value, or None."""
    return next((word.partition("=")[2] for word in sys.argv[1:] if word.startswith("--" + name + "=")), None)


def end(status, words="", command=""):
    """Complain as Slurm does, and end."""
    if words:
        print(command + words, file=sys.stderr)
    raise SystemExit(status)


def require_controller(lies, command):
    """Ends with Slurm's words when the controller cannot be asked."""
    if lies.get("munge"):
        end(1, MUNGE, command + ": error: ")
    if lies.get("controller") in {"down", "silent", "silent but for stderr"}:
        end(1, DOWN, command + ": error: ")
    if lies.get("controller") == "frozen":
        end(1, FROZEN, command + ": error: ")


def sbatch(state, lies, user):
    """Makes a job, perhaps late."""
    request = [user, option("job-name"), "--hold" in sys.argv, option("chdir")]
    if lies.get("controller") == "frozen":
        state["late"].append(request)
        end(1, "Batch job submission failed: " + FROZEN, "sbatch: error: ")
    require_controller(lies, "sbatch")
    job_id = make_job(state, *request)
    if lies.get("sbatch") == "loses the answer":
        end(1, "Batch job submission failed: " + FROZEN, "sbatch: error: ")
    print(job_id)


def squeue(state, lies, user):
    """What the controller remembers."""
    if lies.get("controller") == "silent":
        end(0)
    if lies.get("controller") == "silent but for stderr":
        end(0, DOWN, "slurm_load_jobs error: ")
    require_controller(lies, "squeue")
    ids = (option("jobs") or "").split(",")
    jobs = list(state["jobs"].values())
    if not lies.get("squeue ignores its options"):
        jobs = [job for job in jobs if option("jobs") is None or job["id"] in ids]
        jobs = [job for job in jobs if option("user") in {None, job["user"]} and option("name") in {None, job["name"]}]
        if lies.get("others are private"):
            jobs = [job for job in jobs if job["user"] == user]
        if len(ids) == 1 and ids[0] and ids[0] not in state["jobs"]:
            end(1, "Invalid job id specified", "slurm_load_jobs error: ")
    for job in jobs:
        values = {
            "JobArrayID": job["id"],
            "State": job["state"],
            "exit_code": str(job["wait_status"]),
            "restartcnt": str(job["restarts"]),
            "UserName": job["user"],
            "Account": "proj",
            "Partition": "debug",
            "NodeList": job["node"],
            "SubmitTime": str(job["submit"]),
            "StartTime": "N/A",
            "EndTime": "N/A",
            "Reason": job["reason"] or "None",
            "Name": job["name"],
        }
        print("".join(values[field.rstrip("|").rstrip(":")] + "|" for field in (option("Format") or "").split(",")))


def sacct(state, lies, user):
    """What accounting has been told, if it answers."""
    if lies.get("munge"):
        end(1, MUNGE, "sacct: error: ")
    how = lies.get("sacct")
    if how == "disabled":
        end(1, "Slurm accounting storage is disabled")
    if how == "database down":
        end(1, DATABASE, "sacct: error: ")
    if how == "empty":
        end(0)
    for row in state["rows"]:
        shown = {**row, "state": "PENDING", "name": "allocation"} if how == "placeholder" else row
        asked = option("jobs") is None or shown["id"] in (option("jobs") or "").split(",")
        asked = asked and option("name") in {None, shown["name"]} and option("user") in {None, shown["user"]}
        if not asked or (lies.get("others are private") and row["user"] != user):
            continue
        values = {
            "JobIDRaw": shown["id"],
            "State": shown["state"],
            "ExitCode": shown["exit"],
            "User": shown["user"],
            "Account": "proj",
            "Partition": "" if how == "placeholder" else "debug",
            "NodeList": shown["node"],
            "Submit": "1900000000",
            "Start": "Unknown",
            "End": "Unknown",
            "Reason": "None",
            "JobName": shown["name"],
        }
        print("|".join(values[field] for field in (option("format") or "").split(",")))


def scontrol(state, lies, user):
    """release, show job, ping, --version."""
    verb, job_id = sys.argv[1], sys.argv[-1]
    if verb == "--version":
        print("slurm 22.05.8 (a stand-in)")
        return
    if verb == "ping":
        if lies.get("controller") or lies.get("munge"):
            print("Slurmctld(primary) at login is DOWN")
            end(1)
        print("Slurmctld(primary) at login is UP")
        return
    require_controller(lies, "scontrol")
    job = state["jobs"].get(job_id)
    if job is None:
        end(1, "Invalid job id specified", "slurm_load_jobs error: ")
    if verb == "release":
        if job["user"] != user:
            end(1, "Access/permission denied", "slurm_update error: ")
        if job["state"] == "PENDING" and "eld" in job["reason"]:
            job["reason"] = "Priority"
        return
    print(f"JobId={job_id} JobName={job['name']} UserId={job['user']}(1) JobState={job['state']} Reason={job['reason']}")


def scancel(state, lies, user):
    """Ends a job; silent where there is none."""
    require_controller(lies, "scancel")
    job = state["jobs"].get(sys.argv[-1])
    if job is None or job["state"] not in OPEN_STATES:
        return
    if job["user"] != user:
        end(210, f"Kill job error on job id {job['id']}: Access/permission denied", "scancel: error: ")
    job["state"] = "COMPLETING" if lies.get("jobs take their time to end") else "CANCELLED"
    last_row(state, job["id"])["state"] = f"CANCELLED by {os.getuid()}"


def last_row(state, job_id):
    """The latest row of accounting with this number."""
    return [row for row in state["rows"] if row["id"] == job_id][-1]


def main():
    """One command."""
    directory = os.path.dirname(os.path.abspath(sys.argv[0]))
    command = os.path.basename(sys.argv[0])
    user = pwd.getpwuid(os.getuid()).pw_name
    status = 0
    with changing(directory) as state:
        state["calls"].append([command, *sys.argv[1:]])
        try:
            {"sbatch": sbatch, "squeue": squeue, "sacct": sacct, "scontrol": scontrol, "scancel": scancel}[command](
                state, state["lies"], user
            )
        except SystemExit as ended:
            status = ended.code
    raise SystemExit(status)


if __name__ == "__main__":
    main()
