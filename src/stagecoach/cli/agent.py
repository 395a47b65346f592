"""``stagecoach agent``: makes this machine a data transfer node, and is the courier that runs on it."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from stagecoach.agent.durable_files import read_document
from stagecoach.agent.enrolling import enrol as exchange
from stagecoach.agent.enrolling import token_digest
from stagecoach.agent.errors import NotEnrolled
from stagecoach.agent.journal import Journal
from stagecoach.agent.logs import start_logging
from stagecoach.agent.receiver_address import ReceiverAddress, receiver_address
from stagecoach.agent.state_directory import Enrolment, StateDirectory, default_state_directory
from stagecoach.cli.running import EXIT_CODES, FAILED, AsJson, end, exit_code, print_json
from stagecoach.cli.words import bytes_of, local_time, plain, size
from stagecoach.core.addresses import is_private_road
from stagecoach.core.errors import StagecoachError

# Three polls that wait as long as they may.
OUT_OF_CONTACT_SECONDS = 180.0

app = typer.Typer(no_args_is_help=True, help="Make this machine a data transfer node.", epilog=EXIT_CODES)

State = Annotated[
    Path | None, typer.Option("--state", envvar="STAGECOACH_AGENT_STATE", help="Where the agent keeps what must outlive it.")
]
Server = Annotated[
    str | None, typer.Option("--server", envvar="STAGECOACH_URL", help="The service, like https://transfer.example.org.")
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="STAGECOACH_ENROLMENT_TOKEN", help="The node's enrolment token, which works once; -: standard input."
    ),
]
Send = Annotated[
    Path | None, typer.Option("--send", envvar="STAGECOACH_AGENT_SEND", help="What is below it may be sent by the node's owner.")
]
Receive = Annotated[
    Path | None, typer.Option("--receive", envvar="STAGECOACH_AGENT_RECEIVE", help="What is sent to the node arrives below it.")
]
Receiver = Annotated[
    str | None,
    typer.Option(
        "--receiver",
        envvar="STAGECOACH_AGENT_RECEIVER",
        metavar="HOST[:PORT]",
        help="Where other nodes reach this one; it listens at that port, and is sent to directly.",
    ),
]
KeepFree = Annotated[
    str | None,
    typer.Option(
        "--keep-free",
        envvar="STAGECOACH_AGENT_KEEP_FREE",
        metavar="SIZE",
        help="No node sends here while the receiving disk has less room; 1GiB, or 1 % of a smaller disk, unless said.",
    ),
]
InsecureHttp = Annotated[
    bool, typer.Option("--insecure-http", help="Send the credential in the open over http, for anybody on the way.")
]


@app.command(epilog=EXIT_CODES)
def enrol(
    server: Server = None,
    token: Token = None,
    send: Send = None,
    receive: Receive = None,
    state: State = None,
    name: Annotated[str | None, typer.Option("--name", help="What this machine would be called, if the service asks.")] = None,
    insecure_http: InsecureHttp = False,
    as_json: AsJson = False,
) -> None:
    """Exchange an enrolment token for this node's credential, and keep it."""
    directory = _state(state)
    try:
        with directory.locked():
            enrolment = _enrol(directory, server, token, send, receive, name, insecure_http)
    except (StagecoachError, OSError) as error:
        _end(as_json, error)
    if as_json:
        print_json(
            {"nodeId": enrolment.node_id, "name": enrolment.name, "server": enrolment.server, "state": str(directory.path)}
        )
        return
    typer.echo(f"This machine is the node {plain(enrolment.name)} ({enrolment.node_id}) of {enrolment.server}.")
    typer.echo(f"Run it: stagecoach agent run --state {directory.path}")


@app.command(epilog=EXIT_CODES)
def run(
    state: State = None,
    server: Server = None,
    token: Token = None,
    send: Send = None,
    receive: Receive = None,
    receiver: Receiver = None,
    keep_free: KeepFree = None,
    insecure_http: InsecureHttp = False,
) -> None:
    """Do what the service asks of this node, until SIGTERM. Enrols first where there is a new token."""
    directory = _state(state)
    least_free_bytes = bytes_of(keep_free, "--keep-free")
    try:
        address = receiver_address(receiver) if receiver else None
        with directory.locked():
            enrolment = directory.enrolment()
            if token and (enrolment is None or token_digest(token) != enrolment.token_sha256):
                enrolment = _enrol(directory, server, token, send, receive, None, insecure_http)
            if enrolment is None:
                raise NotEnrolled(
                    f"There is no credential in {directory.path}: enrol this machine with a token of its node"
                    " (stagecoach agent enrol), or give STAGECOACH_ENROLMENT_TOKEN."
                )
            start_logging([enrolment.credential, token or ""])
            if os.geteuid() == 0:
                logging.warning("The agent runs as root, and so does all that is sent here: give it a user of its own.")
            asyncio.run(_run(directory, enrolment, address, least_free_bytes))
    except (StagecoachError, OSError) as error:
        _end(False, error)


@app.command(epilog=EXIT_CODES)
def status(state: State = None, as_json: AsJson = False) -> None:
    """Say how the agent on this machine stands; exit code 0 only while it runs and has contact with the service."""
    directory = _state(state)
    try:
        enrolment = directory.enrolment()
        if enrolment is None:
            raise NotEnrolled(f"There is no credential in {directory.path}: enrol this machine first (stagecoach agent enrol).")
        seen = _seen(directory, enrolment)
    except (StagecoachError, OSError) as error:
        _end(as_json, error)
    if as_json:
        print_json(seen)
    else:
        _show(seen)
    if not seen["running"] or not seen["inContact"]:
        raise typer.Exit(FAILED)


async def _run(
    directory: StateDirectory, enrolment: Enrolment, receiver: ReceiverAddress | None, least_free_bytes: int | None
) -> None:
    # Only an agent makes certificates: who copies a file needs no library for it.
    from stagecoach.agent.running import Agent

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    await Agent(directory, enrolment, receiver=receiver, least_free_bytes=least_free_bytes).run(stop)


def _state(given: Path | None) -> StateDirectory:
    return StateDirectory(given or default_state_directory())


def _enrol(
    directory: StateDirectory,
    server: str | None,
    token: str | None,
    send: Path | None,
    receive: Path | None,
    name: str | None,
    insecure_http: bool,
) -> Enrolment:
    if not server or not server.startswith(("https://", "http://")):
        raise typer.BadParameter("say the service's address, which begins with https://", param_hint="--server")
    if not insecure_http and not is_private_road(server):
        raise typer.BadParameter("over http anybody on the way reads the credential; use https://", param_hint="--server")
    if send is None or receive is None:
        raise typer.BadParameter("say both directories", param_hint="--send and --receive")
    if token == "-":  # noqa: S105 - stands for standard input
        token = sys.stdin.readline()
    token = (token or "").strip()
    if not token:
        raise typer.BadParameter("the node's owner makes one in the portal, or with POST /nodes", param_hint="--token")
    return asyncio.run(exchange(directory, server, token, send, receive, name=name))


def _seen(directory: StateDirectory, enrolment: Enrolment) -> dict[str, Any]:
    last = read_document(directory.status_file) or {}
    commands = [entry for entry in Journal(directory.commands, time.time) if entry.is_open]
    contact = last.get("at") if last.get("trouble") is None else None
    return {
        "nodeId": enrolment.node_id,
        "name": enrolment.name,
        "server": enrolment.server,
        "running": directory.is_in_use(),
        "inContact": isinstance(contact, float) and time.time() - contact < OUT_OF_CONTACT_SECONDS,
        "lastAsked": last.get("at"),
        "trouble": last.get("trouble"),
        "health": last.get("health") or [],
        "freeBytes": {"send": _free(enrolment.send), "receive": _free(enrolment.receive)},
        "commands": [
            {"id": one.id, "kind": one.kind, "state": str(one.state), "transferId": one.transfer_id} for one in commands
        ],
    }


def _free(directory: str) -> int | None:
    return shutil.disk_usage(directory).free if os.path.isdir(directory) else None


def _show(seen: dict[str, Any]) -> None:
    typer.echo(plain(f"{seen['name']} ({seen['nodeId']}) of {seen['server']}"))
    typer.echo("running" if seen["running"] else "not running")
    when = "never" if seen["lastAsked"] is None else local_time(datetime.fromtimestamp(seen["lastAsked"], UTC))
    typer.echo(plain(f"asked the service last: {when}" + (f" ({seen['trouble']})" if seen["trouble"] else "")))
    for name, free in seen["freeBytes"].items():
        typer.echo(f"free to {name}: {'not known' if free is None else size(free)}")
    for sentence in seen["health"]:
        typer.echo(plain(sentence))
    for one in seen["commands"]:
        typer.echo(f"{one['id']}  {one['kind']}  {one['state']}  transfer {one['transferId'] or 'none'}")


def _end(as_json: bool, error: StagecoachError | OSError) -> NoReturn:
    if isinstance(error, StagecoachError):
        end(as_json, exit_code(error), error.code, error.message)
    end(as_json, FAILED, "system_error", f"{error.filename or 'The system'}: {error.strerror or error}.")
