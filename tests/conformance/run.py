"""Throws thousands of requests at the real application, made from ``openapi/openapi.json``: python -m tests.conformance.run.

The application listens on a real socket; behind it is a world of fakes that lives. Schemathesis makes the requests, good
ones and bad ones, and holds every answer to the document. ``schemathesis.toml`` beside this file says what it may expect.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.conformance.living_world import Known, living_world
from tests.e2e.own_service import free_port
from tests.fakes.world import ALICE, migrated_database

from stagecoach.api.app import create_app
from stagecoach.api.signing_keys import ensure_signing_key, sign_token
from stagecoach.flows.toolbox import Toolbox
from stagecoach.serving import WebServer
from stagecoach.settings import AuthSettings, IssuerSettings, ServerSettings

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parents[1] / "openapi" / "openapi.json"
START_SECONDS = 60


class Answers:
    """Stands outermost in the application and counts what it answered, by operation and status."""

    def __init__(self, app: ASGIApp, counts: Counter[tuple[str, int]]) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:
            # The framework answers this outside all layers.
            self._count(scope, 500)
            raise

    def _count(self, scope: Scope, status: int) -> None:
        endpoint = scope.get("endpoint")
        self._counts[getattr(endpoint, "__name__", "no operation"), status] += 1


@dataclass(frozen=True)
class Listening:
    """The application at ``url``, whose tokens ``issuer`` signs; ``answers`` counts what it answered."""

    url: str
    issuer: IssuerSettings
    known: Known
    answers: Counter[tuple[str, int]]


@contextmanager
def listening(directory: Path) -> Iterator[Listening]:
    """The application on a port of its own, in a thread of its own. Raises what its world raised."""
    server_settings = ServerSettings(host="127.0.0.1", port=free_port(), max_requests_per_minute_per_user=0)
    ensure_signing_key(directory / "key.json", directory / "jwks.json")
    issuer = IssuerSettings(jwks=str(directory / "jwks.json"))
    known, answers = Known(), Counter[tuple[str, int]]()
    asyncio.run(migrated_database(directory / "template.db"))
    troubles: list[BaseException] = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[Toolbox]:
        try:
            async with living_world(directory, directory / "template.db", known) as world:
                yield world.tools
        except BaseException as error:
            # The web server would only log it.
            troubles.append(error)
            raise

    app = create_app(opened, AuthSettings(issuers=(issuer,)), server_settings)
    app.add_middleware(Answers, counts=answers)
    server = WebServer(app, server_settings)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        waited = threading.Event()
        for _ in range(START_SECONDS * 10):
            if server.started or not thread.is_alive():
                break
            waited.wait(0.1)
        if not server.started:
            raise RuntimeError("the application did not start")
        yield Listening(f"http://127.0.0.1:{server_settings.port}", issuer, known, answers)
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
    if troubles:
        raise troubles[0]


@dataclass(frozen=True)
class Result:
    """What came of a run; ``cases`` is schemathesis's own count, ``answers`` the application's."""

    exit_code: int
    cases: int
    said: str
    answers: Counter[tuple[str, int]]

    @property
    def server_errors(self) -> dict[str, int]:
        """How many answers of 500 and above, by operation and status."""
        return {f"{name} {status}": count for (name, status), count in self.answers.items() if status >= 500}

    @property
    def unanswered(self) -> list[str]:
        """Operations of the document that never succeeded."""
        return sorted(operation_ids() - {name for name, status in self.answers if status < 300})


def operation_ids() -> set[str]:
    """Every operation of the document; each has the name of the function that answers it."""
    paths = json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]
    return {operation["operationId"] for methods in paths.values() for operation in methods.values()}


def conform(directory: Path, examples: int, *more: str, is_admin: bool = False, shares: int = 1) -> Result:
    """Throws ``examples`` cases at each operation in each phase that draws them, and those of the phases that draw none.

    ``shares`` processes do so at once, each with a seed of its own; only the first runs the phases that draw none.
    """
    with listening(directory) as service:
        key = ensure_signing_key(directory / "key.json", directory / "jwks.json")
        token = sign_token(key, ALICE.username, 86_400, service.issuer, is_admin=is_admin)
        config = directory / "schemathesis.toml"
        config.touch(0o600)
        # TOML's strings are JSON's, but for what JSON need not escape.
        dictionaries = "".join(
            f"[dictionaries.{name}]\nvalues = {json.dumps(values)}\n" for name, values in asdict(service.known).items()
        )
        own = f'headers = {{ Authorization = "Bearer {token}" }}\n'
        config.write_text(own + (HERE / "schemathesis.toml").read_text(encoding="utf-8") + dictionaries, encoding="utf-8")
        options = ["--checks", "all", "--max-examples", str(examples), "--continue-on-failure", "--report", "json", *more]
        command = [Path(sys.prefix, "bin", "st"), "--config-file", config, "run", DOCUMENT, "--url", service.url, *options]
        homes = [directory / f"share-{number}" for number in range(shares)]
        with ExitStack() as opened:
            processes = []
            for number, home in enumerate(homes):
                home.mkdir()
                phases = ["--phases", "fuzzing,stateful"] if number else []
                process = subprocess.Popen(
                    [*command, "--report-json-path", home / "report.json", *phases],
                    stdout=opened.enter_context((home / "said").open("wb")),
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "NO_COLOR": "1", "COLUMNS": "160"},
                    cwd=home,
                )
                processes.append(process)
            exit_codes = [process.wait() for process in processes]
    said = "".join((home / "said").read_text(encoding="utf-8", errors="replace") for home in homes)
    return Result(max(exit_codes, key=abs), sum(cases(home / "report.json") for home in homes), said, service.answers)


def cases(report: Path) -> int:
    """How many cases schemathesis reports to have made; 0 where it made no report."""
    return int(json.loads(report.read_text(encoding="utf-8"))["test_cases"]["generated"]) if report.exists() else 0


def main() -> None:
    """The large run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=500, help="cases of each operation, in each phase that draws them")
    parser.add_argument("--shares", type=int, default=2, help="processes that throw at once, each so many cases")
    parser.add_argument("--least", type=int, default=20_000, help="fails with fewer cases than these")
    parser.add_argument("--admin", action="store_true", help="with an administrator's token")
    chosen, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="stagecoach-conformance-") as directory:
        result = conform(Path(directory), chosen.examples, *more, is_admin=chosen.admin, shares=chosen.shares)
    print(result.said)
    for (name, status), count in sorted(result.answers.items()):
        print(f"{count:7} {status} {name}")
    summary = {
        "cases": result.cases,
        "least": chosen.least,
        "answers": result.answers.total(),
        "server_errors": result.server_errors,
        "never_succeeded": result.unanswered,
        "exit_code": result.exit_code,
    }
    print(json.dumps(summary))
    sys.exit(result.exit_code != 0 or bool(result.server_errors) or result.cases < chosen.least)


if __name__ == "__main__":
    main()
