"""A wrong setting stops the start with one line that names it; a right one is understood from file and environment alike."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from stagecoach.core.errors import SettingsError
from stagecoach.settings import MAX_URL_TTL_SECONDS, Settings, load_settings, settings_from

SSH: dict[str, Any] = {
    "host": "login.example.org",
    "host_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrIWFdTDIZS3I0vDcYMlqFsxK9nwmBbIIVQbqnjEfWx"],
    "credentials": {"key_file": "/keys/{user}"},
}
GOOD: dict[str, Any] = {
    "server": {"port": 8080},
    "database": {"url": "sqlite+aiosqlite:///x.db"},
    "s3": {"private_url": "http://s3:9000", "access_key_id": "key-id-1", "secret_access_key": "very-secret-1"},
    "systems": [{"name": "alps", "ssh": SSH, "file_systems": [{"path": "/home/{user}"}]}],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one value changed; numbers in the path are places in lists."""
    document = copy.deepcopy(GOOD)
    here: Any = document
    *parents, last = path.split(".")
    for name in parents:
        here = here[int(name)] if name.isdigit() else here.setdefault(name, {})
    here[int(last) if last.isdigit() else last] = value
    return document


def the_line(error: SettingsError) -> str:
    assert "\n" not in error.message
    assert error.message.startswith("settings: ")
    assert error.message.endswith(".")
    assert "very-secret-1" not in error.message
    return error.message


ANYBODYS = {"any_audience": True}

WRONG = [
    ("server.port", 0, "server.port"),
    ("server.port", 65536, "server.port"),
    ("server.port", "many", "server.port"),
    ("server.port", None, "server.port"),
    ("server.port", [1], "server.port"),
    ("server.public_url", "ftp://x", "server.public_url"),
    ("server.public_url", "https://user:very-secret-1@x", "server.public_url"),
    ("server.prot", 1, "server.prot"),
    ("server.body_timeout_seconds", 0, "server.body_timeout_seconds"),
    ("server.cors_origins", ["*"], "server.cors_origins.0"),
    ("portal.url", "https://portal.example.org/path", "portal.url"),
    ("portal.title", "", "portal.title"),
    ("portal.cookie_key", "very-secret-1", "portal.cookie_key"),
    ("portal.max_preview_bytes", 0, "portal.max_preview_bytes"),
    ("auth.issuers", [{"jwks": "jwks.json", "portal_client_id": "portal"}], "auth.issuers.0"),
    ("server.cors_origins", ["https://x/"], "server.cors_origins.0"),
    ("server.trusted_proxies", ["*"], "server.trusted_proxies.0"),
    ("server", None, "server"),
    ("server", "x", "server"),
    ("server", [], "server"),
    ("serfer", {}, "serfer"),
    ("database.url", "mysql://u:very-secret-1@h/d", "database.url"),
    ("database.url", "postgresql://u:very-secret-1@h/d", "database.url"),
    ("database.url", "secret_file:/no/such/file", "database.url"),
    ("database.url", "postgresql+psycopg://u:very-secret-1@h:very-secret-1/d", "database.url"),
    ("database.url", "postgresql+psycopg://u:half@very-secret-1@h/d", "database.url"),
    ("database.url", "postgresql+psycopg://u:p@[h/d", "database.url"),
    ("database.pool_size", 0, "database.pool_size"),
    ("s3.private_url", "s3:9000", "s3.private_url"),
    ("s3.private_url", "http://", "s3.private_url"),
    ("s3.private_url", "http://s3/?x=very-secret-1", "s3.private_url"),
    ("s3.private_url", "http://[::1", "s3.private_url"),
    ("s3.private_url", "http://s3:99999", "s3.private_url"),
    ("s3.private_url", "http://s3:very-secret-1/", "s3.private_url"),
    ("s3.private_url", 5, "s3.private_url"),
    ("s3.access_key_id", "secret_file:/no/such/file", "s3.access_key_id"),
    ("s3.secret_access_key", ["very-secret-1"], "s3.secret_access_key"),
    ("s3.secret_access_key", {"a": "very-secret-1"}, "s3.secret_access_key"),
    ("s3.ttl", 59, "s3.ttl"),
    ("s3.ttl", MAX_URL_TTL_SECONDS + 1, "s3.ttl"),
    ("s3.max_part_size", 5 * 1024**2 - 1, "s3.max_part_size"),
    ("s3.max_part_size", 5 * 1024**3 + 1, "s3.max_part_size"),
    ("s3.min_part_size", 1, "s3.min_part_size"),
    ("s3.bucket_lifecycle_configuration.days", 0, "s3.bucket_lifecycle_configuration.days"),
    ("s3.bucket_prefix", "Upper-", "s3.bucket_prefix"),
    ("s3.bucket_prefix", "x" * 32, "s3.bucket_prefix"),
    ("s3.bucket_prefix", "a.b", "s3.bucket_prefix"),
    ("s3.region", "", "s3.region"),
    ("s3.region", "a/b", "s3.region"),
    ("s3.tenant", "a:b", "s3.tenant"),
    ("s3.cors_origins", "https://x", "s3.cors_origins"),
    ("s3.request_timeout_seconds", 0, "s3.request_timeout_seconds"),
    ("s3.request_timeout_seconds", float("nan"), "s3.request_timeout_seconds"),
    ("systems", {}, "systems"),
    ("systems", "alps", "systems"),
    ("systems", [None], "systems.0"),
    ("systems.0.name", "Alps", "systems.0.name"),
    ("systems.0.name", "a b", "systems.0.name"),
    ("systems.0.name", "alps\n", "systems.0.name"),
    ("systems.0.ssh", None, "systems.0"),
    ("systems.0.ssh.host", "", "systems.0.ssh.host"),
    ("systems.0.ssh.host_keys", [], "systems.0.ssh.host_keys"),
    ("systems.0.ssh.host_keys", ["AAAA"], "systems.0.ssh.host_keys.0"),
    ("systems.0.ssh.credentials", {}, "systems.0.ssh.credentials"),
    ("systems.0.ssh.credentials", {"key_file": "/k", "certificate_authority": {"key_file": "/ca"}}, "systems.0.ssh.credentials"),
    (
        "systems.0.ssh.credentials",
        {"certificate_file": "/c", "certificate_authority": {"key_file": "/ca"}},
        "systems.0.ssh.credentials",
    ),
    *(
        (
            f"systems.0.ssh.credentials.certificate_authority{where}",
            value,
            f"systems.0.ssh.credentials.certificate_authority{where}",
        )
        for where, value in (
            ("", {}),
            ("", {"key_file": "/ca", "signing_service_url": "https://signer"}),
            ("", {"key_file": "/ca", "signing_service_token": "very-secret-1"}),
            (".signing_service_url", {"signing_service_url": "http://signer.example.org"}),
            (".signing_service_url", {"signing_service_url": "https://signer/?token=very-secret-1"}),
            (".principal", {"key_file": "/ca", "principal": "everybody"}),
            (".principal", {"key_file": "/ca", "principal": "{user}{home}"}),
            (".principal", {"key_file": "/ca", "principal": "{user},root"}),
            (".ttl_seconds", {"key_file": "/ca", "ttl_seconds": 59}),
            (".ttl_seconds", {"key_file": "/ca", "ttl_seconds": 86401}),
        )
    ),
    *(
        (f"systems.0.ssh.credentials.service_account{where}", value, f"systems.0.ssh.credentials.service_account{named}")
        for where, value, named in (
            ("", {"username": "root"}, ""),
            (".username", "-uroot", ".username"),
            ("", {"username": "xfer", "switch_user": ["sudo", "-n"]}, ".switch_user"),
            ("", {"username": "xfer", "switch_user": ["{user}", "x"]}, ".switch_user"),
            ("", {"username": "xfer", "switch_user": "sudo -u {user}"}, ".switch_user"),
            ("", {"username": "xfer", "switch_user": ["sudo", "-u\n{user}"]}, ".switch_user"),
            ("", {"username": "xfer", "sftp_server": []}, ".sftp_server"),
            ("", {"username": "xfer", "sftp_server": [""]}, ".sftp_server"),
        )
    ),
    ("systems.0.ssh.credentials.key_file", "keys/{user}", "systems.0.ssh.credentials.key_file"),
    ("systems.0.ssh.credentials.key_file", "/keys/../x", "systems.0.ssh.credentials.key_file"),
    ("systems.0.ssh.port", -1, "systems.0.ssh.port"),
    ("systems.0.scheduler", {"kind": "pbs"}, "systems.0.scheduler.kind"),
    ("systems.0.scheduler", {"kind": "local"}, "systems.0"),
    ("systems.0.scheduler", {"binaries": "bin"}, "systems.0.scheduler.binaries"),
    ("systems.0.parallel", {"nodes": 0}, "systems.0.parallel.nodes"),
    ("systems.0.parallel", {"nodes": 32, "tasks_per_node": 9}, "systems.0.parallel"),
    ("systems.0.parallel", {"above_bytes": -1}, "systems.0.parallel.above_bytes"),
    ("systems.0.directives", "--partition=x", "systems.0.directives"),
    ("systems.0.directives", ["--partition x"], "systems.0.directives"),
    ("systems.0.directives", ["partition=x"], "systems.0.directives"),
    ("systems.0.directives", ["--comment=a\nb"], "systems.0.directives"),
    ("systems.0.file_systems", [], "systems.0.file_systems"),
    ("systems.0.file_systems.0.path", "home", "systems.0.file_systems.0.path"),
    ("systems.0.file_systems.0.path", "/home/..", "systems.0.file_systems.0.path"),
    ("systems.0.file_systems.0.data_type", "tape", "systems.0.file_systems.0.data_type"),
    ("systems.0.wait", "never", "systems.0.wait"),
    ("systems.0.python", "python3; rm", "systems.0.python"),
    ("systems.0.python", "python3\n", "systems.0.python"),
    ("systems.0.environment", {"A B": "x"}, "systems.0.environment"),
    ("systems.0.environment", {"A": "x\ny"}, "systems.0.environment"),
    ("systems.0.environment", {"A": 1}, "systems.0.environment.A"),
    ("systems.0.mover_concurrency", 0, "systems.0.mover_concurrency"),
    ("systems.0.limits", {"max_file_size_bytes": 0}, "systems.0.limits.max_file_size_bytes"),
    ("systems.0.unknown", 1, "systems.0.unknown"),
    ("auth.issuers", [{"jwks": "k", "algorithms": ["none"]}], "auth.issuers.0.algorithms.0"),
    ("auth.issuers", [{"jwks": "k", "algorithms": ["HS256"]}], "auth.issuers.0.algorithms.0"),
    ("auth.issuers", [{"jwks": "k", "algorithms": []}], "auth.issuers.0.algorithms"),
    ("auth.issuers", [{"jwks": ""}], "auth.issuers.0.jwks"),
    ("auth.issuers", [{"jwks": "k", "clock_skew_seconds": 601}], "auth.issuers.0.clock_skew_seconds"),
    ("auth.issuers", [{}], "auth.issuers.0"),
    ("auth.issuers", [{"issuer": "http://sso.example.org"}], "auth.issuers.0.issuer"),
    ("auth.issuers", [{"issuer": "https://sso.example.org:99999"}], "auth.issuers.0.issuer"),
    ("auth.issuers", [{"jwks": "http://sso.example.org/keys"}], "auth.issuers.0.jwks"),
    ("auth.issuers", [{"jwks": "http://[::1/keys"}], "auth.issuers.0.jwks"),
    ("auth.issuers", [{"jwks": "k", "user_map": {"a": "alice"}}], "auth.issuers.0"),
    ("auth.issuers", [{"jwks": "k", "client_id": "cli"}], "auth.issuers.0"),
    ("auth.issuers", [{"issuer": "https://a.org"}], "auth.issuers.0"),
    ("auth.issuers", [{"jwks": "https://a.org/keys"}], "auth.issuers.0"),
    ("auth.issuers", [{"jwks": "k", "audience": "stagecoach", "any_audience": True}], "auth.issuers.0"),
    ("auth.issuers", [{"issuer": "https://a.org", **ANYBODYS}, {"issuer": "https://b.org", **ANYBODYS}], "auth.issuers"),
    ("auth.issuers", [{"issuer": "https://a.org", "user_names": "site", **ANYBODYS}] * 2, "auth.issuers"),
    (
        "auth.issuers",
        [{"issuer": "https://a.org", "user_names": "site", **ANYBODYS}, {"jwks": "k", "user_names": "site"}],
        "auth.issuers",
    ),
    ("auth.jwks", "jwks.json", "auth.jwks"),
    ("accounts", {"registration": "open", "name_is_user": True}, "accounts"),
    ("accounts.registration", "ajar", "accounts.registration"),
    ("personal_tokens.max_days", 0, "personal_tokens.max_days"),
    ("worker.poll_min_seconds", 0, "worker.poll_min_seconds"),
    ("worker.lease_seconds", 1, "worker.lease_seconds"),
    ("webhooks.allowed_hosts", ["https://x.example.org"], "webhooks.allowed_hosts"),
    ("webhooks.allowed_hosts", ["x.example.org/path"], "webhooks.allowed_hosts"),
    ("webhooks.allowed_hosts", ["*"], "webhooks.allowed_hosts"),
    ("webhooks.allowed_hosts", ["*.*.org"], "webhooks.allowed_hosts"),
    ("webhooks.allowed_hosts", ["x.example.org"], "webhooks"),
    ("webhooks.signing_secret", "very-secret-1", "webhooks"),
    ("webhooks.max_tries", 0, "webhooks.max_tries"),
    ("events.poll_seconds", 0, "events.poll_seconds"),
    ("events.max_streams_per_user", 0, "events.max_streams_per_user"),
    ("log.level", "loud", "log.level"),
]


@pytest.mark.parametrize(("path", "value", "named"), WRONG)
def test_a_wrong_setting_gives_one_line_that_names_it(path: str, value: Any, named: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        settings_from(changed(path, value))
    assert the_line(wrong.value).startswith(f"settings: {named}: ")


def test_good_settings_are_good() -> None:
    settings = settings_from(GOOD)
    assert settings.systems[0].roots == ("/home/{user}",)
    assert settings.s3.client_url == "http://s3:9000"


def test_no_settings_at_all_are_good() -> None:
    assert settings_from({}).server.host == "127.0.0.1"


def test_several_wrong_settings_give_one_line_that_counts_the_others() -> None:
    with pytest.raises(SettingsError) as wrong:
        settings_from({"server": {"port": 0}, "log": {"level": "loud"}, "x": 1})
    assert "(2 more)" in the_line(wrong.value)


def test_a_local_system_has_no_several_tasks() -> None:
    document = changed("systems.0.scheduler", {"kind": "local", "state_directory": "/jobs"})
    settings_from(document)
    document["systems"][0]["parallel"] = {"nodes": 2}
    with pytest.raises(SettingsError, match="parallel needs scheduler kind slurm"):
        settings_from(document)


def test_two_systems_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError) as wrong:
        settings_from({**GOOD, "systems": GOOD["systems"] * 2})
    assert "alps" in the_line(wrong.value)


def test_an_unknown_key_is_called_so() -> None:
    with pytest.raises(SettingsError) as wrong:
        settings_from({"s3": {"privte_url": "http://x"}})
    assert the_line(wrong.value) == "settings: s3.privte_url: there is no such setting."


@pytest.mark.parametrize(
    "text",
    [
        "s3: [",
        "a: b: c",
        "\t- x",
        "just words",
        "[1, 2]",
        "5",
        "1: 2",
        "true: {}",
        "null: {}",
        "? [a, b]\n: c",
        "!!python/object:os.system {}",
        "&a [*a]",
        "s3: {private_url: 'http://x', private_url: }}",
        "\x00",
        "server:\n  port: 1\n port: 2",
    ],
)
def test_a_file_that_is_no_settings_gives_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as wrong:
        load_settings(path)
    the_line(wrong.value)


def test_a_file_that_cannot_be_read_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        with pytest.raises(SettingsError) as wrong:
            load_settings(path)
        assert str(path) in the_line(wrong.value)


def test_an_empty_file_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load_settings(tmp_path / "empty.yaml") == Settings()


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(GOOD))
    monkeypatch.setenv("STAGECOACH_SETTINGS", str(tmp_path / "settings.yaml"))
    assert load_settings().systems[0].name == "alps"
    (tmp_path / "other.yaml").write_text("server: {port: 9}")
    assert load_settings(tmp_path / "other.yaml").systems == ()


def test_the_environment_overlays_the_file_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGECOACH_S3__PUBLIC_URL", "https://s3.example.org/")
    monkeypatch.setenv("STAGECOACH_S3__BUCKET_LIFECYCLE_CONFIGURATION__DAYS", "3")
    monkeypatch.setenv("STAGECOACH_SERVER__PORT", "9090")
    monkeypatch.setenv("STAGECOACH_WORKER__RUN_IN_API", "false")
    settings = settings_from(GOOD)
    assert settings.s3.public_url == "https://s3.example.org"
    assert settings.s3.private_url == "http://s3:9000"
    assert settings.s3.bucket_lifecycle_configuration.days == 3
    assert settings.s3.bucket_lifecycle_configuration.abort_incomplete_multipart_days == 7
    assert (settings.server.port, settings.worker.run_in_api) == (9090, False)


@pytest.mark.parametrize("name", ["STAGECOACH_S3__TTL", "STAGECOACH_S3__TTL_SECONDS"])
@pytest.mark.parametrize("key", ["ttl", "ttl_seconds", None])
def test_both_names_of_a_setting_overlay_both(monkeypatch: pytest.MonkeyPatch, name: str, key: str | None) -> None:
    monkeypatch.setenv(name, "120")
    assert settings_from({"s3": {key: 60}} if key else {}).s3.ttl_seconds == 120


@pytest.mark.parametrize("key", ["ttl", "ttl_seconds"])
def test_both_names_of_a_setting_are_understood_in_the_file(key: str) -> None:
    assert settings_from({"s3": {key: 60}}).s3.ttl_seconds == 60


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("STAGECOACH_SERVER__PORT", "many", "server.port"),
        ("STAGECOACH_SERVER__PROT", "1", "server.prot"),
        ("STAGECOACH_S3", "{not json", "s3"),
        ("STAGECOACH_SYSTEMS", "alps", "systems"),
        ("STAGECOACH_S3__CORS_ORIGINS", "https://x", "s3:"),
        ("STAGECOACH_LOG", "debug", "log"),
        ("STAGECOACH_DATABASE__URL", "mysql://u:very-secret-1@h/d", "database.url"),
    ],
)
def test_a_wrong_variable_gives_one_line_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as wrong:
        settings_from(GOOD)
    assert named in the_line(wrong.value).lower()


def test_variables_of_the_client_and_the_testbed_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "TOKEN", "SYSTEM", "SETTINGS", "STALL_SECONDS", "REQUIRE_TESTBED", "SERVERLESS", "S3_PORT"):
        monkeypatch.setenv(f"STAGECOACH_{name}", "whatever")
    assert settings_from(GOOD).systems[0].name == "alps"


def test_a_secret_is_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("  s3cr3t-é \n")
    reference = f"secret_file:{tmp_path / 'secret'}"
    assert settings_from({"s3": {"secret_access_key": reference}}).s3.secret_access_key.get_secret_value() == "s3cr3t-é"
    monkeypatch.setenv("STAGECOACH_S3__SECRET_ACCESS_KEY", reference)
    assert settings_from(GOOD).s3.secret_access_key.get_secret_value() == "s3cr3t-é"
    (tmp_path / "url").write_text("sqlite+aiosqlite:///from-file.db\n")
    settings = settings_from({"database": {"url": f"secret_file:{tmp_path / 'url'}"}})
    assert settings.database.url.get_secret_value() == "sqlite+aiosqlite:///from-file.db"


def test_a_secret_file_that_is_no_text_is_named_but_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfevery-secret-1")
    with pytest.raises(SettingsError) as wrong:
        settings_from({"s3": {"secret_access_key": f"secret_file:{tmp_path / 'secret'}"}})
    assert str(tmp_path / "secret") in the_line(wrong.value)


def test_secrets_are_never_shown() -> None:
    secret = "postgresql+psycopg://u:very-secret-1@h/d"
    settings = settings_from({**GOOD, "database": {"url": secret}})
    for shown in (repr(settings), str(settings), repr(settings.s3), settings.model_dump_json(), str(settings.model_dump())):
        assert "very-secret-1" not in shown
        assert "key-id-1" not in shown


def test_settings_never_change() -> None:
    settings = settings_from(GOOD)
    with pytest.raises(ValueError):
        settings.server.port = 1  # type: ignore[misc]
    with pytest.raises(ValueError):
        settings.s3 = settings.s3  # type: ignore[misc]


def test_each_way_in_is_understood() -> None:
    authority = {"key_file": "/ca", "principal": "hpc-{user}"}
    for credentials, login in (
        ({"key_file": "/keys/{user}"}, "alice"),
        ({"certificate_authority": authority}, "alice"),
        ({"certificate_authority": {"signing_service_url": "https://signer/v1", "signing_service_token": "t"}}, "alice"),
        ({"certificate_authority": {"signing_service_url": "http://127.0.0.1:9/v1"}}, "alice"),
        ({"certificate_authority": authority, "service_account": {"username": "xfer"}}, "xfer"),
    ):
        ssh = settings_from(changed("systems.0.ssh.credentials", credentials)).systems[0].ssh
        assert ssh is not None
        assert ssh.credentials.login_name("alice") == login
        if ssh.credentials.service_account is not None:
            switched = ssh.credentials.service_account.switched("alice", ["id", "-u"])
            assert switched == ["sudo", "-n", "-u", "alice", "--", "id", "-u"]


def test_a_provider_that_sends_people_back_must_be_told_where_to() -> None:
    issuer = {"issuer": "https://sso.example.org", "audience": "stagecoach", "portal_client_id": "portal"}
    document = {**GOOD, "auth": {"issuers": [issuer]}, "portal": {"enabled": True}}
    with pytest.raises(SettingsError) as refused:
        settings_from(document)
    assert the_line(refused.value).startswith("settings: portal: url must be set")
    document["portal"]["url"] = "https://transfer.example.org"
    assert settings_from(document).portal.url == "https://transfer.example.org"
