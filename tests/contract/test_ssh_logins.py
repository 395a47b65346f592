"""Every way in, against the testbed's real sshd: which are let in, as whom, and what is said of those that are refused."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from tests.contract.files_contract import FilesContract, FilesUnderTest
from tests.contract.ssh_testbed import directory_of, open_pool, read_testbed, system_settings
from tests.fakes.signing_service import signing_service

from stagecoach.clusters.remote_files import RemoteFiles
from stagecoach.clusters.slurm_over_ssh import SlurmOverSsh
from stagecoach.clusters.ssh_pool import SshPool
from stagecoach.core.errors import PermissionRefused, SystemUnavailable

ODD_WORDS = ["it's", "$(touch pwned)", "`id`", "a\nb", "é", "-n", "", "\\", "!x", "a;b&c|d", "%u {user} ~"]


@pytest.fixture
def found() -> dict[str, str]:
    return read_testbed()


def authority(found: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"certificate_authority": {"key_file": found["SSH_USER_CA_KEY"], **more}}


def service_account(found: dict[str, str], **more: Any) -> dict[str, Any]:
    account = {"username": found["SSH_SERVICE_ACCOUNT"], **more}
    return {"key_file": found["SSH_KEYS_DIRECTORY"] + "/{user}", "service_account": account}


def settings_with(found: dict[str, str], credentials: dict[str, Any], **ssh: Any) -> Any:
    return system_settings(found, ssh={"credentials": credentials, **ssh})


def signed_by_hand(found: dict[str, str], directory: Path, user: str, **options: Any) -> dict[str, Any]:
    """A key and a certificate in files, as a site's own tools would leave them."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(directory / user)
    signer = options.pop("signer", None) or asyncssh.read_private_key(found["SSH_USER_CA_KEY"])
    certificate = signer.generate_user_certificate(key, "by hand", **{"principals": [user], **options})
    certificate.write_certificate(directory / f"{user}-cert.pub")
    return {"key_file": f"{directory}/{{user}}", "certificate_file": f"{directory}/{{user}}-cert.pub"}


async def refusal(settings: Any, user: str = "alice") -> str:
    async with open_pool(settings) as pool:
        with pytest.raises(PermissionRefused) as raised:
            await pool.run(user, ["true"])
    return raised.value.message


@contextmanager
def another_sshd(found: dict[str, str], directory: Path, *lines: str) -> Iterator[int]:
    """The testbed's sshd once more, with other lines and a port of its own; ends with the block."""
    original = Path(found["TESTBED_ROOT"], "sshd", "sshd_config").read_text(encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if any(line.startswith("HostKey") for line in lines):
        original = re.sub(r"(?m)^HostKey .*\n", "", original)
    replaced = re.sub(r"(?m)^Port .*$", f"Port {port}", original)
    config = directory / "sshd_config"
    # sshd takes the first of two lines that say different things.
    config.write_text("\n".join([*lines, replaced]), encoding="utf-8")
    process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert process.poll() is None, "this sshd did not start"
            assert time.monotonic() < end, "this sshd does not listen"
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


async def test_a_certificate_opens_the_account_of_its_user_and_no_other(found: dict[str, str]) -> None:
    settings = settings_with(found, authority(found, ttl_seconds=120))
    async with open_pool(settings) as pool:
        for user in ("alice", "bob"):
            assert (await pool.run(user, ["id", "-un"])).stdout.strip() == user
        proof = await pool.try_login("alice")
    signer = asyncssh.read_private_key(found["SSH_USER_CA_KEY"]).get_fingerprint()
    assert proof.startswith("logged in as alice, with a certificate for alice, valid until 20")
    assert signer in proof


async def test_a_renewed_certificate_goes_on_working_and_the_old_connection_is_left(found: dict[str, str]) -> None:
    ahead = 0.0
    settings = settings_with(found, authority(found, ttl_seconds=60))
    assert settings.ssh is not None
    pool = SshPool("testbed", settings.ssh, wall_clock=lambda: time.time() + ahead)
    first = (await pool.run("alice", ["sh", "-c", "echo $PPID"])).stdout
    assert (await pool.run("alice", ["sh", "-c", "echo $PPID"])).stdout == first
    ahead = 61.0
    # sshd's clock is not ours: the certificate made "a minute later" is backdated, so it is in force already.
    assert (await pool.run("alice", ["sh", "-c", "echo $PPID"])).stdout != first
    async with pool.sftp("alice") as sftp:
        assert await sftp.realpath(".") == found["ALICE_HOME"]
    await pool.aclose()


async def test_a_signing_services_certificate_opens_the_door(found: dict[str, str], tmp_path: Path) -> None:
    with signing_service(tmp_path, asyncssh.read_private_key(found["SSH_USER_CA_KEY"])) as service:
        async with open_pool(settings_with(found, {"certificate_authority": service.settings()})) as pool:
            assert (await pool.run("bob", ["id", "-un"])).stdout.strip() == "bob"
        assert [question["principal"] for question in service.questions] == ["bob"]


async def test_a_certificate_for_another_principal_is_called_one(found: dict[str, str], tmp_path: Path) -> None:
    told = await refusal(settings_with(found, signed_by_hand(found, tmp_path, "alice", principals=["bob"])))
    assert "refused the login of alice: its certificate is for another principal (bob), not for alice" in told


async def test_a_principal_that_the_account_does_not_take_is_named(found: dict[str, str]) -> None:
    told = await refusal(settings_with(found, authority(found, principal="hpc-{user}")))
    assert "its certificate is in force and for hpc-alice" in told
    assert "takes another principal" in told


async def test_an_expired_certificate_is_called_one(found: dict[str, str], tmp_path: Path) -> None:
    times = {"valid_after": 1_000_000_000, "valid_before": 1_100_000_000}
    told = await refusal(settings_with(found, signed_by_hand(found, tmp_path, "alice", **times)))
    assert "its certificate expired on 2004-11-09 11:33:20 UTC" in told


async def test_a_certificate_that_is_not_valid_yet_is_called_one(found: dict[str, str], tmp_path: Path) -> None:
    told = await refusal(settings_with(found, signed_by_hand(found, tmp_path, "alice", valid_after=2**33, valid_before=2**34)))
    assert "its certificate is not valid before 2242-03-16" in told


async def test_an_authority_that_the_system_does_not_know_is_named(found: dict[str, str], tmp_path: Path) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    told = await refusal(settings_with(found, signed_by_hand(found, tmp_path, "alice", signer=stranger)))
    assert f"the authority that signed it ({stranger.get_fingerprint()}) is unknown or revoked there" in told


async def test_a_revoked_authority_is_named(found: dict[str, str], tmp_path: Path) -> None:
    revoked = tmp_path / "revoked"
    revoked.write_bytes(Path(found["SSH_USER_CA_KEY"] + ".pub").read_bytes())
    with another_sshd(found, tmp_path) as port:
        async with open_pool(settings_with(found, authority(found), port=port)) as pool:
            assert (await pool.run("alice", ["id", "-un"])).stdout == "alice\n"
    with another_sshd(found, tmp_path, f"RevokedKeys {revoked}") as port:
        told = await refusal(settings_with(found, authority(found), port=port))
    signer = asyncssh.read_private_key(found["SSH_USER_CA_KEY"]).get_fingerprint()
    assert f"({signer}) is unknown or revoked there" in told


@pytest.mark.parametrize("kind", ["key", "certificate", "service account"])
async def test_a_changed_host_key_is_refused_however_we_log_in(found: dict[str, str], tmp_path: Path, kind: str) -> None:
    changed = tmp_path / "changed_host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", changed], check=True)
    credentials = {
        "key": {"key_file": found["SSH_KEYS_DIRECTORY"] + "/{user}"},
        "certificate": authority(found),
        "service account": service_account(found),
    }[kind]
    with another_sshd(found, tmp_path) as port:
        async with open_pool(settings_with(found, credentials, port=port)) as pool:
            assert (await pool.run("alice", ["id", "-un"])).stdout == "alice\n"
    with another_sshd(found, tmp_path, f"HostKey {changed}") as port:
        async with open_pool(settings_with(found, credentials, port=port)) as pool:
            with pytest.raises(SystemUnavailable, match="showed a host key that is not among the configured ones"):
                await pool.run("alice", ["true"])
            with pytest.raises(SystemUnavailable, match="host key"):
                async with pool.sftp("alice"):
                    pytest.fail("let in")


async def test_a_service_account_runs_each_command_as_the_user_its_words_unharmed(found: dict[str, str]) -> None:
    async with open_pool(settings_with(found, service_account(found))) as pool:
        for user in ("alice", "bob"):
            assert (await pool.run(user, ["id", "-un"])).stdout.strip() == user
            printed = await pool.run(user, ["printf", "%s\\0", *ODD_WORDS])
            assert printed.stdout.split("\0")[:-1] == ODD_WORDS
        assert (await pool.try_login("alice")).startswith("logged in as xferd, which becomes alice, with key file ")


async def test_a_service_account_with_a_certificate(found: dict[str, str]) -> None:
    credentials = {**authority(found), "service_account": {"username": found["SSH_SERVICE_ACCOUNT"]}}
    async with open_pool(settings_with(found, credentials)) as pool:
        assert (await pool.run("bob", ["id", "-un"])).stdout == "bob\n"
        assert "which becomes bob, with a certificate for xferd, valid until" in await pool.try_login("bob")


async def test_a_service_accounts_jobs_are_the_users(found: dict[str, str]) -> None:
    settings = settings_with(found, service_account(found))
    async with open_pool(settings) as pool:
        assert "Slurm" in await SlurmOverSsh(settings, pool).ping("alice")
        submitted = await pool.run("alice", ["sbatch", "--parsable", "--hold", "--chdir=/tmp", "--wrap=true"])
        assert submitted.exit_status == 0, submitted.stderr
        job_id = submitted.stdout.strip()
        try:
            owner = await pool.run("alice", ["squeue", "-h", "-j", job_id, "-o", "%u"])
            assert owner.stdout.strip() == "alice"
        finally:
            assert (await pool.run("alice", ["scancel", job_id])).exit_status == 0


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("daemon", "xferd may not become daemon on testbed: .*sudo.*allows it in sudoers"),
        ("nosuchuser", "knows no account nosuchuser"),
        ("xferd", "is the service account"),
        ("root", "Nobody acts as root"),
        ("-uroot", "not a user name"),
        ("#0", "not a user name"),
    ],
)
async def test_whom_a_service_account_does_not_become(found: dict[str, str], user: str, words: str) -> None:
    assert re.search(words, await refusal(settings_with(found, service_account(found)), user))


async def test_a_switch_that_leads_to_another_account_is_found_out_before_anything_is_done(
    found: dict[str, str], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    for switch in (["env", "WHO={user}"], ["sudo", "-n", "-u", "bob", "env", "WHO={user}"]):
        async with open_pool(settings_with(found, service_account(found, switch_user=switch))) as pool:
            with pytest.raises(PermissionRefused, match="switch_user leads to the account with number"):
                await pool.run("alice", ["touch", str(mark)])
            with pytest.raises(PermissionRefused, match="switch_user leads to the account with number"):
                async with pool.sftp("alice"):
                    pytest.fail("let in")
    assert not mark.exists()


async def test_nobody_logs_in_as_root_by_any_way(found: dict[str, str]) -> None:
    for credentials in (authority(found), service_account(found), {"key_file": found["SSH_KEYS_DIRECTORY"] + "/{user}"}):
        assert "Nobody acts as root" in await refusal(settings_with(found, credentials), "root")


class TestFilesThroughAServiceAccount(FilesContract):
    """The SFTP server behind the switch keeps every promise of the port."""

    @pytest.fixture
    async def under_test(self) -> Any:
        found = read_testbed()
        settings = settings_with(found, service_account(found))
        with directory_of("alice", found["ALICE_HOME"]) as directory:
            async with open_pool(settings) as pool:
                yield FilesUnderTest(RemoteFiles(settings, pool), "alice", directory)

    async def test_home_and_files_are_the_users(self, under_test: FilesUnderTest) -> None:
        assert await under_test.files.home("alice") == os.path.realpath(read_testbed()["ALICE_HOME"])
        await under_test.files.write_file("alice", f"{under_test.directory}/f", b"x", 0o600)
        assert os.stat(f"{under_test.directory}/f").st_uid == pwd.getpwnam("alice").pw_uid
        with pytest.raises(PermissionRefused):
            await under_test.files.read_file("bob", f"{under_test.directory}/f", 1)


async def test_row_21_fifty_questions_at_once_wait_their_turn_at_an_sshd_that_allows_ten_sessions(
    found: dict[str, str], tmp_path: Path
) -> None:
    with another_sshd(found, tmp_path, "MaxSessions 10") as port:
        settings = settings_with(found, {"key_file": found["SSH_KEYS_DIRECTORY"] + "/{user}"}, port=port)
        async with open_pool(settings) as pool:
            files = RemoteFiles(settings, pool)
            asked = (files.list_directory("alice", "/", limit=100, follow_symlinks=False) for _ in range(50))
            listings = await asyncio.gather(*asked)
            commands = await asyncio.gather(*(pool.run("alice", ["id", "-un"]) for _ in range(50)))
    assert {len(listing.entries) for listing in listings} == {len(os.listdir("/"))}
    assert {answer.stdout for answer in commands} == {"alice\n"}
