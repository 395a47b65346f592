"""What Slurm's commands say of what a cluster has, made into our words. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stagecoach.clusters.slurm_answers import epoch, require_answer
from stagecoach.clusters.slurm_users_answers import known, whole_number
from stagecoach.ports.compute import Node, NodeState, Partition, ProjectAccount, Reservation

_NODE_STATES = {
    "IDLE": NodeState.IDLE,
    "ALLOCATED": NodeState.ALLOCATED,
    "MIXED": NodeState.MIXED,
    "DOWN": NodeState.DOWN,
    "FAIL": NodeState.DOWN,
    "FAILING": NodeState.DOWN,
    "ERROR": NodeState.DOWN,
    "NOT_RESPONDING": NodeState.DOWN,
    "DRAIN": NodeState.DRAIN,
    "DRAINED": NodeState.DRAIN,
    "DRAINING": NodeState.DRAIN,
    "RESERVED": NodeState.RESERVED,
    "MAINTENANCE": NodeState.RESERVED,
    "MAINT": NodeState.RESERVED,
    "COMPLETING": NodeState.COMPLETING,
    "POWERED_DOWN": NodeState.OFFLINE,
    "POWER_DOWN": NodeState.POWERING_DOWN,
    "POWERING_DOWN": NodeState.POWERING_DOWN,
    "POWERING_UP": NodeState.POWERING_UP,
    "POWER_UP": NodeState.POWERING_UP,
    "REBOOT_ISSUED": NodeState.POWERING_UP,
    "FUTURE": NodeState.OFFLINE,
}


def nodes(exit_status: int, stdout: str, stderr: str) -> list[Node]:
    """From ``scontrol show node``. Raises SystemUnavailable."""
    require_answer(exit_status, stdout, stderr, "scontrol")
    found = []
    for line in stdout.splitlines():
        if line.startswith("NodeName="):
            load = _field(line, "CPULoad")
            found.append(
                Node(
                    name=_field(line, "NodeName"),
                    cpus=whole_number(_field(line, "CPUTot")) or 0,
                    states=node_states(re.split(r"\+", _field(line, "State"))),
                    sockets=whole_number(_field(line, "Sockets")),
                    cores=whole_number(_field(line, "CoresPerSocket")),
                    threads=whole_number(_field(line, "ThreadsPerCore")),
                    cpu_load=float(load) if re.fullmatch(r"\d+(\.\d+)?", load) else None,
                    free_memory_mib=whole_number(_field(line, "FreeMem")),
                    allocated_memory_mib=whole_number(_field(line, "AllocMem")),
                    allocated_cpus=whole_number(_field(line, "CPUAlloc")),
                    features=_list(_field(line, "ActiveFeatures")),
                    address=_field(line, "NodeAddr") or None,
                    hostname=_field(line, "NodeHostName") or None,
                    partitions=_list(_field(line, "Partitions")),
                    weight=whole_number(_field(line, "Weight")),
                )
            )
    return found


def node_states(words: Sequence[str]) -> tuple[NodeState, ...]:
    """Slurm's words, with the marks that some carry (``DOWN*``), in FirecREST's; what has no such word is left out."""
    # A DRAIN or DOWN node shows what its CPUs do as well: IDLE+DRAIN.
    known = [_NODE_STATES[plain] for word in words if (plain := word.strip("*~#!%$@^-+ ").upper()) in _NODE_STATES]
    if any("*" in word for word in words):
        known.append(NodeState.DOWN)
    return tuple(dict.fromkeys(known)) or (NodeState.UNKNOWN,)


def partitions(exit_status: int, stdout: str, stderr: str) -> list[Partition]:
    """From ``scontrol show partition``. Raises SystemUnavailable."""
    require_answer(exit_status, stdout, stderr, "scontrol")
    return [
        Partition(
            _field(line, "PartitionName"),
            _field(line, "State"),
            whole_number(_field(line, "TotalCPUs")),
            whole_number(_field(line, "TotalNodes")),
        )
        for line in stdout.splitlines()
        if line.startswith("PartitionName=")
    ]


def reservations(exit_status: int, stdout: str, stderr: str) -> list[Reservation]:
    """From ``scontrol show reservation``. Raises SystemUnavailable."""
    require_answer(exit_status, stdout, stderr, "scontrol")
    return [
        Reservation(
            _field(line, "ReservationName"),
            known(_field(line, "Nodes")),
            epoch(_field(line, "StartTime")) or 0,
            epoch(_field(line, "EndTime")) or 0,
            known(_field(line, "Features")) or None,
            _field(line, "State") or None,
        )
        for line in stdout.splitlines()
        if line.startswith("ReservationName=")
    ]


def accounts(exit_status: int, stdout: str, stderr: str) -> list[ProjectAccount] | None:
    """From ``sacctmgr show user``; None where no accounts are kept. Raises SystemUnavailable."""
    if re.search(r"not running a supported accounting_storage|accounting storage is disabled", stderr, re.IGNORECASE):
        return None
    require_answer(exit_status, stdout, stderr, "sacctmgr")
    rows = [line.split("|") for line in stdout.splitlines() if line.count("|") == 1]
    default = {account for account, _ in rows if account}
    names = dict.fromkeys(account for _, account in rows if account)
    return [ProjectAccount(name, name in default) for name in names]


def _field(line: str, key: str) -> str:
    found = re.search(rf"(?:^|\s){key}=(\S*)", line)
    return found[1] if found else ""


def _list(text: str) -> tuple[str, ...]:
    return tuple(word for word in known(text).split(",") if word)
