"""Runs a command against the service and ends the program: one JSON document or a few lines, and an exit code.

Exit codes live here and nowhere else:

    0    done
    1    failed
    2    wrong usage
    3    not logged in, or the token does not hold
    4    no such transfer, system or file
    75   failed, but may be tried again
    130  interrupted (Ctrl-C); transfers can be resumed
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Annotated, Any, NoReturn, Self, TypeVar

import typer
from pydantic import BaseModel

from stagecoach.cli.config import Access, load_access
from stagecoach.cli.words import plain
from stagecoach.client import Client
from stagecoach.core.errors import StagecoachError

DONE, FAILED, USAGE, NOT_LOGGED_IN, NOT_FOUND, TRY_AGAIN, INTERRUPTED = 0, 1, 2, 3, 4, 75, 130
EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not logged in, 4 not found, 75 may be tried again, 130 interrupted."

T = TypeVar("T", bound=BaseModel)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


class Ongoing:
    """What a command is about, for the words at its end; a context manager around the asking."""

    transfer_id: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing was shown."""

    def begun(self, transfer_id: str) -> None:
        """There is an id."""
        self.transfer_id = transfer_id


def run(as_json: bool, work: Callable[[Client], Awaitable[T]], show: Callable[[T], None], ongoing: Ongoing | None = None) -> None:
    """Ask the service, print the answer; every failure becomes a sentence and an exit code."""
    try:
        access = load_access()
        with ongoing or Ongoing(), _all_signals_interrupt():
            answer = asyncio.run(_with_client(access, work))
    except KeyboardInterrupt:
        transfer_id = ongoing.transfer_id if ongoing is not None else None
        step = f"Continue it: stagecoach transfers resume {transfer_id}" if transfer_id else None
        end(as_json, INTERRUPTED, "interrupted", "Interrupted.", transfer_id, step)
    except StagecoachError as error:
        transfer_id = getattr(error, "transfer_id", None)
        end(as_json, exit_code(error), error.code, error.message, transfer_id, getattr(error, "next_step", None))
    except OSError as error:
        end(as_json, FAILED, "system_error", f"{error.filename or 'The system'}: {error.strerror or error}.")
    else:
        if as_json:
            print_json(answer.model_dump(mode="json", by_alias=True))
        else:
            show(answer)


def exit_code(error: StagecoachError) -> int:
    """By what a script would do about it."""
    status = getattr(error, "status", None)
    if error.code == "not_authenticated" or status == 401:
        return NOT_LOGGED_IN
    if status == 404:
        return NOT_FOUND
    return TRY_AGAIN if error.retryable else FAILED


def end(
    as_json: bool, code: int, name: str, message: str, transfer_id: str | None = None, next_step: str | None = None
) -> NoReturn:
    """The sentence goes to people, the document to programs; then the program ends."""
    for line in filter(None, (message, next_step)):
        typer.echo(plain(line), err=True)
    if as_json:
        print_json({"error": {"code": name, "message": message, "transferId": transfer_id, "nextStep": next_step}})
    raise typer.Exit(code)


def print_json(document: Any) -> None:
    """On standard output, whole."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    sys.stdout.flush()


async def _with_client(access: Access, work: Callable[[Client], Awaitable[T]]) -> T:
    async with access.client() as client:
        return await work(client)


@contextlib.contextmanager
def _all_signals_interrupt() -> Iterator[None]:
    """The end of the terminal or of the session stops a transfer as cleanly as Ctrl-C."""
    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # under nohup the hang-up stays ignored
            before[number] = signal.signal(number, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
