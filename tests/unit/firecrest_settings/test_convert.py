"""FirecREST's settings become ours of the same meaning; what cannot is named; nothing that is written fails to load."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.firecrest_settings.configurations import ALL, HELM, NEWEST, OLDEST, POINT_TO_POINT

from stagecoach.core.errors import SettingsError
from stagecoach.firecrest_settings import Converted, convert, convert_document
from stagecoach.firecrest_settings.systems import NO_HOST_KEY
from stagecoach.settings import Settings, settings_from

GIBIBYTE = 1024**3


def loaded(converted: Converted, directory: Path) -> Settings:
    """The settings as the service would read them, every secret at its place."""
    text = converted.text
    for name in ("s3-access-key-id", "s3-secret-access-key", "s3_secret"):
        (directory / name).write_text(f"value of {name}\n")
    # The quick reader: this is done a thousand times.
    document = yaml.load(text.replace("secret_file:/app/secrets/", f"secret_file:{directory}/"), yaml.CSafeLoader)
    return settings_from(document)


def left(converted: Converted) -> dict[str, str]:
    return {one.place: one.why for one in converted.left}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STAGECOACH_SETTINGS", "STAGECOACH_S3__REGION"):
        monkeypatch.delenv(name, raising=False)


def test_the_newest_form_means_the_same(tmp_path: Path) -> None:
    settings = loaded(convert(NEWEST, str(tmp_path)), tmp_path)
    eiger, daint = settings.systems
    assert (eiger.name, daint.name) == ("eiger", "daint")
    assert eiger.ssh is not None
    assert eiger.ssh.proxy_jump is not None
    assert (eiger.ssh.host, eiger.ssh.port, eiger.ssh.proxy_jump.host) == ("login.eiger.example.org", 2222, "gate.example.org")
    assert eiger.ssh.max_connections == 500
    assert eiger.ssh.connect_timeout_seconds == 6 + 7
    assert (eiger.ssh.command_timeout_seconds, eiger.ssh.idle_timeout_seconds, eiger.ssh.keepalive_seconds) == (30, 60, 4)
    assert eiger.ssh.credentials.key_file == "/app/secrets/{user}_key"
    assert eiger.ssh.credentials.certificate_file == "/app/secrets/{user}_key-cert.pub"
    assert (eiger.scheduler.kind, eiger.scheduler.rest) == ("slurm", None)
    rest = daint.scheduler.rest
    assert rest is not None
    assert (rest.url, rest.api_version, rest.timeout_seconds) == ("https://slurm.example.org:6820", "v0.0.42", 12)
    assert rest.jwt_key_file == "/etc/stagecoach/slurm-jwt-key"
    assert (eiger.probing.interval_seconds, eiger.probing.timeout_seconds) == (300, 20)
    assert (daint.probing.interval_seconds, daint.probing.timeout_seconds) == (60, 10)
    assert settings.server.max_direct_file_bytes == 10 * 1024**2
    assert eiger.roots == ("/home", "/scratch")
    assert [(one.data_type, one.default_work_directory) for one in eiger.file_systems] == [("users", False), ("scratch", True)]
    assert eiger.work_directory == "/scratch/{user}/.stagecoach"
    assert eiger.directives == ("--partition=xfer", "--time=0-12:00:00", "-A{account}")
    assert eiger.needs_account
    assert daint.directives == eiger.directives
    assert daint.s3_url is None
    s3 = settings.s3
    assert (s3.private_url, s3.client_url) == ("https://rgw.internal.example.org", "https://rgw.example.org")
    assert (s3.region, s3.tenant, s3.ttl_seconds, s3.max_part_size_bytes) == ("zrh", "hpc", 604800, GIBIBYTE)
    assert s3.bucket_lifecycle_configuration.days == 5
    assert s3.bucket_prefix == "f7t-stagecoach-"
    assert s3.access_key_id.get_secret_value() == "value of s3-access-key-id"
    assert s3.secret_access_key.get_secret_value() == "value of s3_secret"
    (issuer,) = settings.auth.issuers
    assert issuer.jwks == "https://sso.centre.example.org/realms/hpc/protocol/openid-connect/certs"
    assert (issuer.issuer, issuer.audience, issuer.any_audience) == (None, None, True)
    assert (issuer.username_claim, issuer.algorithms) == ("username", ("RS512",))


def test_the_oldest_form_means_the_same(tmp_path: Path) -> None:
    converted = convert(OLDEST, str(tmp_path))
    settings = loaded(converted, tmp_path)
    (system,) = settings.systems
    assert system.ssh is not None
    assert system.ssh.max_connections == 250
    assert (system.ssh.command_timeout_seconds, system.ssh.keepalive_seconds) == (5, 5)
    assert system.ssh.connect_timeout_seconds == 10
    authority = system.ssh.credentials.certificate_authority
    assert authority is not None
    assert authority.signing_service_url == "https://ssh-service:5000"
    assert system.directives == ("--nodes=1", "--time=0-00:15:00")
    assert settings.s3.client_url == "http://localhost:9000"
    assert settings.s3.secret_access_key.get_secret_value() == "value of s3-secret-access-key"
    assert settings.s3.ttl_seconds == 7 * 86400
    assert settings.server.max_direct_file_bytes == 1024**2
    assert (system.probing.interval_seconds, system.probing.timeout_seconds) == (120, 10)
    assert [(one.data_type, one.default_work_directory) for one in system.file_systems] == [("users", True)]
    assert settings.s3.max_part_size_bytes == 5 * 1024**2
    (issuer,) = settings.auth.issuers
    assert issuer.jwks == "https://keycloak:8080/auth/realms/kcrealm/protocol/openid-connect/certs"
    assert issuer.username_claim == "preferred_username"
    why = left(converted)
    assert "604800 was taken" in why["storage.ttl"]
    assert "5242880 was taken" in why["storage.multipart.max_part_size"]
    assert "http:// was made https://" in why["auth.authentication.publicCerts[0]"]
    assert "http:// was made https://" in why["ssh_credentials.url"]
    assert "everybody with a token" in why["auth.authorization"]
    assert "# CHECK: FirecREST asked OpenFGA" in converted.text


def test_the_charts_values_mean_the_same(tmp_path: Path) -> None:
    converted = convert(HELM, str(tmp_path))
    settings = loaded(converted, tmp_path)
    (alps,) = settings.systems
    assert alps.name == "alps"
    assert alps.ssh is not None
    assert alps.ssh.credentials.key_file == "/etc/stagecoach/keys/{user}"
    assert alps.directives == ("--ntasks=1",)
    assert alps.work_directory == "{home}/.stagecoach"
    one, partner = settings.auth.issuers
    assert (one.issuer, partner.issuer) == ("https://sso.example.org/auth/realms/one", "https://idp.partner.example.org")
    assert {one.user_names, partner.user_names} == {"site"}
    why = left(converted)
    assert {"global", "image", "replicas"} <= set(why)
    assert why["firecrest.clusters[1]"] == "its scheduler is pbs; Stagecoach has Slurm only"
    assert not any(place.startswith("firecrest.clusters[1].") for place in why)
    assert "not copied" in why["firecrest.ssh_credentials.keys.fireuser.private_key"]
    assert "/etc/stagecoach/keys/firesrv" in why["firecrest.ssh_credentials.keys.firesrv.private_key"]
    assert "ssh-keygen -p" in why["firecrest.ssh_credentials.keys.firesrv.passphrase"]


def test_without_a_store_one_is_asked_for(tmp_path: Path) -> None:
    converted = convert(POINT_TO_POINT, str(tmp_path))
    settings = loaded(converted, tmp_path)
    lumi, leonardo = settings.systems
    assert (lumi.name, lumi.roots) == ("lumi-one", ("/home/{user}",))
    assert leonardo.roots == ("/leonardo/home",)
    assert settings.auth.issuers == ()
    assert "# CHECK: FirecREST had no S3 store" in converted.text
    why = left(converted)
    assert why["clusters[0].name"] == "became lumi-one"
    assert "streamer" in why["clusters[0].data_operation.data_transfer"]
    assert "wormhole" in why["clusters[1].data_operation.data_transfer"]
    assert "the user's own token" in why["ssh_credentials.type"]


def test_a_second_store_is_not_taken_for_the_first(tmp_path: Path) -> None:
    document = yaml.safe_load(NEWEST)
    document["clusters"][1] = copy.deepcopy(document["clusters"][1])
    transfer = document["clusters"][1]["data_operation"]["data_transfer"]
    transfer |= {"private_url": "https://rgw.daint.example.org", "region": "lug"}
    converted = convert(yaml.safe_dump(document), str(tmp_path))
    settings = loaded(converted, tmp_path)
    assert settings.systems[1].s3_url == "https://rgw.daint.example.org"
    assert settings.s3.region == "zrh"
    assert "there is one store" in left(converted)["clusters[1].data_operation.data_transfer.region"]
    transfer["public_url"] = "https://elsewhere.example.org"
    converted = convert(yaml.safe_dump(document), str(tmp_path))
    assert loaded(converted, tmp_path).systems[1].s3_url is None
    assert "in another store" in converted.text


def test_one_limit_for_direct_files_is_the_largest_and_never_too_small(tmp_path: Path) -> None:
    document = yaml.safe_load(NEWEST)
    document["clusters"][1] = copy.deepcopy(document["clusters"][1])
    document["clusters"][1]["data_operation"]["max_ops_file_size"] = 2 * GIBIBYTE
    converted = convert(yaml.safe_dump(document), str(tmp_path))
    assert loaded(converted, tmp_path).server.max_direct_file_bytes == GIBIBYTE
    why = left(converted)
    assert f"{GIBIBYTE} was taken" in why["clusters[1].data_operation.max_ops_file_size"]
    assert "one limit for all systems" in why["clusters[0].data_operation.max_ops_file_size"]
    del document["clusters"][1]["data_operation"]["max_ops_file_size"]
    document["clusters"][0]["data_operation"]["max_ops_file_size"] = 1000
    converted = convert(yaml.safe_dump(document), str(tmp_path))
    assert loaded(converted, tmp_path).server.max_direct_file_bytes == 1024**2


def test_slurmrestd_is_asked_only_where_it_was(tmp_path: Path) -> None:
    document = yaml.safe_load(NEWEST)
    del document["clusters"][1]["scheduler"]["connection_mode"]
    converted = convert(yaml.safe_dump(document), str(tmp_path))
    assert loaded(converted, tmp_path).systems[1].scheduler.rest is None
    assert "rest or hybrid only" in left(converted)["clusters[1].scheduler.api_url"]


def test_clusters_in_files_of_their_own_are_read(tmp_path: Path) -> None:
    document = yaml.safe_load(NEWEST)
    folder = tmp_path / "clusters"
    folder.mkdir()
    for number, cluster in enumerate(document["clusters"]):
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(cluster))
    document["clusters"] = f"path:{folder}"
    converted = convert(yaml.safe_dump(document), str(tmp_path))
    assert [system.name for system in loaded(converted, tmp_path).systems] == ["eiger", "daint"]
    assert "0.yaml.service_account" in left(converted)
    document["clusters"] = f"path:{folder}/nowhere"
    with pytest.raises(SettingsError, match=r"clusters: the folder cannot be read"):
        convert(yaml.safe_dump(document), str(tmp_path))


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_no_secret_and_no_host_key_is_made_up_or_copied(text: str) -> None:
    converted = convert(text)
    told = converted.text + str(converted.left)
    assert "very-secret" not in told
    assert converted.text.count(NO_HOST_KEY) == converted.text.count("host_keys:") > 0
    assert converted.checks == converted.text.count("# CHECK:") > 0


def mappings(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping in a document, and where it is."""
    if isinstance(value, dict):
        yield place, value
        for name, inner in value.items():
            yield from mappings(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from mappings(inner, f"{place}[{number}]")


# Names of users and of services stand there, not of settings.
NAMES = ("keys", "services")


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_what_nobody_knows_is_named_with_its_place(text: str) -> None:
    # Without what YAML shares between two places.
    document = yaml.safe_load(text.replace("*operation", "{}").replace("&operation", ""))
    seen = 0
    for place, mapping in list(mappings(document)):
        if place.endswith(NAMES) or (place == "" and "firecrest" in mapping):
            continue
        mapping["newInSomeVersion"] = {"very-secret-7": 1}
        try:
            why = left(convert_document(document, "/secrets"))
        finally:
            del mapping["newInSomeVersion"]
        named = f"{place}.newInSomeVersion" if place else "newInSomeVersion"
        # Of what is left as a whole, with its reason, nothing more is said.
        if not any(place.startswith(whole) and named != whole for whole in why):
            assert why[named] == "is no setting of FirecREST that is known here", place
            seen += 1
    assert seen >= 8


ODD: list[Any] = ["\n- x: [", "{user}\t\x00\x1b[31m" + "x" * 5000, -1, 1e400, True, [1], {"a": {}}, "http://u:pw@h/?q"]


def leaves(value: Any, seen: set[int]) -> Iterator[tuple[Any, Any]]:
    """Every place of a value: the container and the key. What YAML shares is visited once."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if id(value) in seen:
        return
    seen.add(id(value))
    for key, inner in items:
        yield value, key
        yield from leaves(inner, seen)


@pytest.mark.parametrize("text", ALL.values(), ids=ALL)
def test_whatever_is_written_loads_and_whatever_is_wrong_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    document = yaml.safe_load(text)
    refusals: list[str] = []
    for container, key in list(leaves(document, set())):
        kept = container[key]
        for odd in ODD:
            container[key] = odd
            try:
                converted = convert_document(document, str(tmp_path))
            except SettingsError as error:
                refusals.append(error.message)
                continue
            assert loaded(converted, tmp_path) is not None
            assert all((one.place + one.why).isprintable() for one in converted.left)
        container[key] = kept
    assert len(refusals) > 20
    assert all(message.isprintable() for message in refusals)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: [", "the file: is not valid YAML at line 1"),
        ("", "no configuration of FirecREST v2"),
        ("- 1", "no configuration of FirecREST v2"),
        ("systems: []\nauth: {}", "no configuration of FirecREST v2"),
        ("clusters: []", "no configuration of FirecREST v2"),
        ("auth: {}\nclusters: 5", "clusters: must be a list"),
        ("auth: {}\nclusters: [5]", r"clusters\[0\]: must hold settings by name"),
        ("auth: {}\nclusters: [{name: a}]", r"clusters\[0\].ssh: is missing"),
        ("auth: {}\nclusters: [{name: a, ssh: {port: 1}}]", r"clusters\[0\].ssh.host: is missing"),
        ("auth: {}\nclusters: [{name: a, ssh: {host: h, maxClients: 1, max_clients: 2}}]", "is written twice, as maxClients too"),
        ("auth: {}\nclusters: [{name: a, ssh: {host: h, port: x}}]", r"clusters\[0\].ssh.port: must be a number"),
        ("auth: {}\nclusters: [{name: a, ssh: {host: 'a b'}}]", r"clusters\[0\].ssh.host: must be a host name"),
        ("auth: {}\nclusters: [{name: a, ssh: {host: h}}, {name: A, ssh: {host: h}}]", "two of them would be named a"),
        ("ssh_credentials: {type: SSHMagic}\nclusters: []", "must be SSHStaticKeys or SSHService or SSHCA"),
        ("auth: {}\nclusters: [2001-99-99]", "is not valid YAML"),
    ],
)
def test_what_cannot_be_converted_says_why(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        convert(text)


def test_a_value_that_is_not_taken_is_left_out_and_named(tmp_path: Path) -> None:
    document = yaml.safe_load(NEWEST)
    document["clusters"][0]["ssh"]["max_clients"] = 0
    document["clusters"][0]["data_operation"]["data_transfer"]["public_url"] = "https://user:very-secret-8@s3.example.org"
    converted = convert(yaml.safe_dump(document), str(tmp_path))
    settings = loaded(converted, tmp_path)
    assert settings.systems[0].ssh is not None
    assert settings.systems[0].ssh.max_connections == 100
    assert settings.s3.public_url is None
    why = left(converted)
    assert "is not taken here" in why["clusters[0].ssh.max_clients"]
    assert "credentials" in why["clusters[0].data_operation.data_transfer.public_url"]
    assert "CHECK: s3.public_url was left out" in converted.text
    assert "very-secret" not in converted.text + str(converted.left)
