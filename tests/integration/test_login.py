"""``stagecoach login`` and ``logout`` before a real service and a provider of identities, over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.fakes.provider import AUDIENCE, CLIENT_ID, Provider
from tests.fakes.world import migrated_database, open_world, world_settings
from typer.testing import CliRunner, Result

from stagecoach.api.app import create_app
from stagecoach.cli import login as login_module
from stagecoach.cli.config import Access, Renewal, config_file, load_access, save_access, stored_access
from stagecoach.cli.device_login import Prompt, log_in_by_device
from stagecoach.cli.main import app
from stagecoach.cli.provider import LogInFailed, Metadata, read_metadata
from stagecoach.cli.renewing import FreshToken
from stagecoach.client.errors import ServiceError
from stagecoach.flows.toolbox import Toolbox
from stagecoach.settings import AuthSettings, IssuerSettings

PASSWORD = "seven llamas read maps"
Person = Callable[[Prompt], None]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("STAGECOACH_URL", "STAGECOACH_TOKEN", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider().serving() as serving:
        yield serving


@pytest.fixture
def service(provider: Provider, tmp_path: Path) -> Iterator[str]:
    """The URL of a real application, in a thread of its own."""
    auth = AuthSettings(issuers=(IssuerSettings(issuer=provider.issuer, audience=AUDIENCE, client_id=CLIENT_ID),))
    settings = world_settings(auth=auth.model_dump(), accounts={"enabled": True, "registration": "open"})
    ready, found = threading.Event(), {}

    async def serve() -> None:
        await migrated_database(tmp_path / "template.db")
        async with open_world(tmp_path, tmp_path / "template.db", settings) as world:

            @asynccontextmanager
            async def opened() -> AsyncIterator[Toolbox]:
                yield world.tools

            server = uvicorn.Server(uvicorn.Config(create_app(opened, auth), host="127.0.0.1", port=0, log_config=None))
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            task = asyncio.create_task(server.serve())
            while not server.started:
                assert not task.done()
                await asyncio.sleep(0.01)
            found["server"], found["port"] = server, server.servers[0].sockets[0].getsockname()[1]
            ready.set()
            await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield f"http://127.0.0.1:{found['port']}"
    found["server"].should_exit = True
    thread.join()


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[[Person], None]:
    """Has somebody act when the code is shown."""

    def acts(what: Person) -> None:
        show = login_module._show

        def shown(prompt: Prompt) -> None:
            show(prompt)
            what(prompt)

        monkeypatch.setattr(login_module, "_show", shown)

    return acts


def stagecoach(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(app, list(arguments), **options)


def test_a_person_logs_in_by_a_code_and_out_again(provider: Provider, service: str, person: Callable[[Person], None]) -> None:
    person(lambda prompt: provider.approve(prompt.code, "alice"))
    logged_in = stagecoach("login", service, "--json")
    assert logged_in.exit_code == 0, logged_in.output
    assert json.loads(logged_in.stdout) == {"url": service, "configFile": str(config_file())}
    assert "enter the code" in logged_in.stderr
    assert config_file().stat().st_mode & 0o777 == 0o600
    access = stored_access()
    assert access is not None
    assert access.renewal is not None
    for secret in (access.token or "-", access.renewal.refresh_token):
        assert secret not in logged_in.output
        assert secret not in repr((access, access.renewal))
    assert stagecoach("transfers", "list").exit_code == 0
    assert "POST token refresh_token" not in provider.requests
    assert stagecoach("logout").exit_code == 0
    assert provider.refresh_tokens == {}
    assert not config_file().exists()
    assert stagecoach("transfers", "list").exit_code == 3
    assert stagecoach("logout").exit_code == 0


@pytest.mark.parametrize("rotates", [True, False])
def test_a_token_that_runs_out_is_renewed_and_kept(
    provider: Provider, service: str, person: Callable[[Person], None], rotates: bool
) -> None:
    provider.rotates_refresh_tokens = rotates
    provider.access_seconds = 20
    person(lambda prompt: provider.approve(prompt.code, "alice"))
    assert stagecoach("login", service).exit_code == 0
    first = stored_access()
    provider.access_seconds = 300
    assert stagecoach("transfers", "list").exit_code == 0
    second = stored_access()
    assert first is not None
    assert first.renewal is not None
    assert second is not None
    assert second.renewal is not None
    assert second.token != first.token
    assert (second.renewal.refresh_token != first.renewal.refresh_token) is rotates
    assert config_file().stat().st_mode & 0o777 == 0o600
    renewals = provider.requests.count("POST token refresh_token")
    assert stagecoach("transfers", "list").exit_code == 0
    assert provider.requests.count("POST token refresh_token") == renewals


def test_a_log_in_that_the_provider_ended_says_to_log_in(
    provider: Provider, service: str, person: Callable[[Person], None]
) -> None:
    person(lambda prompt: provider.approve(prompt.code, "alice"))
    provider.access_seconds = 31
    assert stagecoach("login", service).exit_code == 0
    access = stored_access()
    assert access is not None
    assert access.renewal is not None
    save_access(Access(access.url, access.token, Renewal(**{**vars(access.renewal), "expires_at": 0.0})))
    provider.refresh_tokens.clear()
    ended = stagecoach("transfers", "list")
    assert ended.exit_code == 3
    assert "Your log-in has ended." in ended.stderr
    assert "stagecoach login" in ended.stderr


def test_processes_that_renew_at_once_use_a_refresh_token_once(provider: Provider) -> None:
    tokens = provider._tokens("alice")
    metadata = read_metadata(provider.issuer)
    renewal = Renewal(
        provider.issuer, CLIENT_ID, metadata.token_endpoint, metadata.revocation_endpoint, tokens["refresh_token"], 0.0
    )
    save_access(Access("https://transfer.example.org", tokens["access_token"], renewal))
    with ThreadPoolExecutor(8) as threads:
        sources = [FreshToken(load_access()) for _ in range(8)]
        got = list(threads.map(lambda source: asyncio.run(source()), sources))
    assert len(set(got)) == 1
    assert provider.requests.count("POST token refresh_token") == 1


def test_a_token_that_the_service_refused_is_renewed_before_its_end(provider: Provider) -> None:
    tokens = provider._tokens("alice")
    metadata = read_metadata(provider.issuer)
    renewal = Renewal(provider.issuer, CLIENT_ID, metadata.token_endpoint, None, tokens["refresh_token"], 2.0**40)
    save_access(Access("https://transfer.example.org", "refused", renewal))
    source = FreshToken(load_access())
    assert asyncio.run(source()) == "refused"
    assert asyncio.run(source("refused")) != "refused"
    assert provider.requests.count("POST token refresh_token") == 1


def test_a_log_out_elsewhere_is_not_undone_by_renewing(provider: Provider) -> None:
    tokens = provider._tokens("alice")
    metadata = read_metadata(provider.issuer)
    renewal = Renewal(provider.issuer, CLIENT_ID, metadata.token_endpoint, None, tokens["refresh_token"], 0.0)
    source = FreshToken(Access("https://transfer.example.org", "old", renewal))
    assert asyncio.run(source()) != "old"
    assert not config_file().exists()


def test_ctrl_c_ends_the_waiting_cleanly(provider: Provider, service: str, person: Callable[[Person], None]) -> None:
    def interrupts(_prompt: Prompt) -> None:
        raise KeyboardInterrupt

    person(interrupts)
    stopped = stagecoach("login", service, "--json")
    assert stopped.exit_code == 130
    assert json.loads(stopped.stdout)["error"]["code"] == "interrupted"
    assert "Traceback" not in stopped.output
    assert not config_file().exists()


def test_a_token_of_ones_own_is_kept_without_asking_the_provider(provider: Provider, service: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(provider.token("alice"))
    asked = len(provider.requests)
    assert stagecoach("login", service, "--token-file", str(tmp_path / "token")).exit_code == 0
    assert not any("device" in one or "POST" in one for one in provider.requests[asked:])
    access = stored_access()
    assert access is not None
    assert access.renewal is None


def test_a_provider_that_the_service_does_not_name_is_not_used(provider: Provider, service: str) -> None:
    refused = stagecoach("login", service, "--issuer", "https://evil.example.org")
    assert refused.exit_code == 2
    assert provider.requests == []
    assert stagecoach("login", service, "--issuer", provider.issuer, "--token-file", "-", input="x").exit_code == 2


def test_a_session_is_ended_by_the_log_out(provider: Provider, service: str) -> None:
    import httpx

    who = {"name": "alice", "password": PASSWORD}
    assert httpx.post(f"{service}/accounts", json=who).status_code == 201
    token = httpx.post(f"{service}/accounts/sessions", json=who).json()["token"]
    save_access(Access(service, token))
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{service}/accounts/me", headers=headers).status_code == 200
    assert stagecoach("logout").exit_code == 0
    assert httpx.get(f"{service}/accounts/me", headers=headers).status_code == 401


def test_a_log_out_that_could_not_be_told_forgets_the_token_and_says_so(
    provider: Provider, service: str, person: Callable[[Person], None]
) -> None:
    person(lambda prompt: provider.approve(prompt.code, "alice"))
    assert stagecoach("login", service).exit_code == 0
    provider.is_down = True
    told = stagecoach("logout")
    assert told.exit_code != 0
    assert "forgotten here" in told.stderr
    assert not config_file().exists()


# The waiting itself, against the provider but on a clock of the test's.


class Waiting:
    """Sleeps at once, and has something happen at a turn."""

    def __init__(self, happens: dict[int, Callable[[], None]] | None = None) -> None:
        self.slept: list[float] = []
        self.time = 0.0
        self._happens = happens or {}

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        self._happens.get(len(self.slept), lambda: None)()

    def monotonic(self) -> float:
        return self.time


def wait_at(provider: Provider, waiting: Waiting, metadata: Metadata | None = None) -> Any:
    metadata = metadata or read_metadata(provider.issuer)
    return log_in_by_device(metadata, CLIENT_ID, "openid", lambda _: None, sleep=waiting.sleep, monotonic=waiting.monotonic)


def only_code(provider: Provider) -> str:
    (log_in,) = provider.device_log_ins.values()
    return log_in.user_code


def test_it_asks_at_the_interval_and_slower_when_told(provider: Provider) -> None:
    provider.interval_seconds = 2
    provider.slow_downs = 2
    waiting = Waiting({5: lambda: provider.approve(only_code(provider), "alice")})
    assert wait_at(provider, waiting).access_token
    assert waiting.slept == [2, 7, 12, 12, 12]


def test_an_interval_of_nothing_is_no_storm(provider: Provider) -> None:
    provider.interval_seconds = 0
    waiting = Waiting({3: lambda: provider.approve(only_code(provider), "alice")})
    wait_at(provider, waiting)
    assert waiting.slept == [1, 1, 1]


def test_a_refusal_in_the_browser_ends_it(provider: Provider) -> None:
    waiting = Waiting({2: lambda: provider.deny(only_code(provider))})
    with pytest.raises(LogInFailed, match="refused in the browser"):
        wait_at(provider, waiting)


def test_a_code_that_grew_old_ends_it(provider: Provider) -> None:
    provider.device_seconds = 30
    waiting = Waiting()
    with pytest.raises(LogInFailed, match="too old"):
        wait_at(provider, waiting)
    assert waiting.time <= 30


def test_a_provider_that_stumbles_is_waited_for(provider: Provider) -> None:
    def falls() -> None:
        provider.is_down = True

    def rises() -> None:
        provider.is_down = False
        provider.approve(only_code(provider), "alice")

    waiting = Waiting({2: falls, 4: rises})
    assert wait_at(provider, waiting).access_token
    assert waiting.slept == [1, 1, 2, 4]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example.org"},
        {"token_endpoint": "http://evil.example.org/token"},
        {"token_endpoint": None},
        {"token_endpoint": 7},
    ],
)
def test_metadata_that_would_send_secrets_elsewhere_is_refused(provider: Provider, changes: dict[str, Any]) -> None:
    provider.metadata_changes = changes
    with pytest.raises(LogInFailed):
        read_metadata(provider.issuer)


def test_a_provider_without_the_device_grant_says_to_bring_a_token(provider: Provider) -> None:
    provider.metadata_changes = {"device_authorization_endpoint": None}
    with pytest.raises(LogInFailed, match="--token-file"):
        wait_at(provider, Waiting())


def test_a_provider_in_the_clear_on_another_machine_gets_nothing() -> None:
    with pytest.raises(LogInFailed, match="https"):
        read_metadata("http://sso.example.org")


def test_a_provider_that_is_not_there_is_named(provider: Provider) -> None:
    provider.is_down = True
    with pytest.raises((ServiceError, LogInFailed)):
        read_metadata(provider.issuer)
