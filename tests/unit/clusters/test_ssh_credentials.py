"""Certificates: signed for one account, renewed in time, and refused here already when a signer gave something odd."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from tests.fakes.signing_service import SigningService, signing_service

from stagecoach.clusters.ssh_certificates import read_facts
from stagecoach.clusters.ssh_credentials import CertificateAuthority, Credential
from stagecoach.core.errors import PermissionRefused, SystemUnavailable
from stagecoach.settings.credentials import CertificateAuthoritySettings

NOW = 1_800_000_000.0


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def signer(tmp_path: Path) -> asyncssh.SSHKey:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "authority")
    return key


@pytest.fixture
def service(tmp_path: Path, signer: asyncssh.SSHKey) -> Iterator[SigningService]:
    with signing_service(tmp_path, signer) as it:
        yield it


def with_key_file(tmp_path: Path, clock: Callable[[], float], *, forwards: bool = False, **more: Any) -> CertificateAuthority:
    settings = CertificateAuthoritySettings.model_validate({"key_file": str(tmp_path / "authority"), **more})
    return CertificateAuthority("daint", settings, clock, forwards=forwards)


def asking(service: SigningService, **more: Any) -> CertificateAuthority:
    settings = CertificateAuthoritySettings.model_validate(service.settings(**more))
    return CertificateAuthority("daint", settings, time.time, forwards=False)


def certificate_of(credential: Credential) -> Any:
    return credential.key[1]


async def test_a_certificate_is_for_one_account_short_and_may_do_nothing_but_commands(
    tmp_path: Path, signer: asyncssh.SSHKey
) -> None:
    authority = with_key_file(tmp_path, Clock(), ttl_seconds=600, principal="hpc-{user}")
    credential = await authority.of("alice")
    certificate = certificate_of(credential)
    facts = read_facts(certificate)
    assert facts.principals == ("hpc-alice",)
    assert (facts.valid_after, facts.valid_before) == (int(NOW) - 120, int(NOW) + 600)
    assert facts.authority == signer.get_fingerprint()
    assert certificate.options == {}
    assert credential.principal == "hpc-alice"
    assert "hpc-alice" in credential.words
    assert signer.get_fingerprint() in credential.words


async def test_a_gateway_needs_forwarding_and_nothing_more(tmp_path: Path, signer: asyncssh.SSHKey) -> None:
    certificate = certificate_of(await with_key_file(tmp_path, Clock(), forwards=True).of("alice"))
    assert certificate.options == {"permit-port-forwarding": True}


async def test_it_is_kept_for_two_thirds_of_its_life_and_then_made_anew_for_the_same_key(
    tmp_path: Path, signer: asyncssh.SSHKey
) -> None:
    clock = Clock()
    authority = with_key_file(tmp_path, clock, ttl_seconds=900)
    first = await authority.of("alice")
    clock.now += 599
    assert await authority.of("alice") is first
    assert (await authority.of("bob")).principal == "bob"
    clock.now += 2
    renewed = await authority.of("alice")
    assert renewed is not first
    assert renewed.key[0] is first.key[0]
    assert renewed.certificate is not None
    assert renewed.certificate.valid_before == int(clock.now) + 900
    assert not first.has_ended(NOW + 899)
    assert first.has_ended(NOW + 900)


async def test_the_key_is_made_in_each_process_and_written_nowhere(tmp_path: Path, signer: asyncssh.SSHKey) -> None:
    before = sorted(tmp_path.iterdir())
    one, other = with_key_file(tmp_path, Clock()), with_key_file(tmp_path, Clock())
    keys = {certificate_of(await authority.of("alice")).key.public_data for authority in (one, other)}
    assert len(keys) == 2
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [None, "not a key", "encrypted"])
async def test_an_authority_whose_key_cannot_be_used_is_named(
    tmp_path: Path, signer: asyncssh.SSHKey, content: str | None
) -> None:
    if content is None:
        (tmp_path / "authority").unlink()
    elif content == "encrypted":
        signer.write_private_key(tmp_path / "authority", "pkcs8-pem", passphrase="secret")
    else:
        (tmp_path / "authority").write_text(content)
    with pytest.raises(SystemUnavailable, match=r"certificate authority of daint cannot sign.*key_file"):
        await with_key_file(tmp_path, Clock()).of("alice")


async def test_a_signing_service_is_asked_for_the_key_the_principal_and_the_life(service: SigningService) -> None:
    credential = await asking(service, ttl_seconds=300, principal="hpc-{user}").of("alice")
    certificate = certificate_of(credential)
    assert service.questions == [
        {
            "publicKey": certificate.key.export_public_key("openssh").decode().strip(),
            "principal": "hpc-alice",
            "ttlSeconds": 300,
        }
    ]
    assert read_facts(certificate).principals == ("hpc-alice",)


Answer = Callable[[SigningService, dict[str, Any]], tuple[int, bytes]]
ODD_ANSWERS: list[tuple[str, Answer, type[Exception], str]] = [
    ("no such user", lambda s, q: (403, b'{"message": "secret words"}'), PermissionRefused, "signs no certificate for alice"),
    ("broken", lambda s, q: (500, b"secret words"), SystemUnavailable, "answered 500"),
    ("a redirect", lambda s, q: (307, b""), SystemUnavailable, "answered 307"),
    ("no JSON", lambda s, q: (200, b"<html>secret words"), SystemUnavailable, "without"),
    ("another shape", lambda s, q: (200, b'["secret words"]'), SystemUnavailable, "without"),
    ("no certificate", lambda s, q: (200, b'{"certificate": "secret words"}'), SystemUnavailable, "no user certificate"),
    ("too much", lambda s, q: (200, b" " * 200_000), SystemUnavailable, "more than"),
    ("for another", lambda s, q: (200, s.certificate(q, principals=["bob"])), SystemUnavailable, "another principal"),
    ("for anybody", lambda s, q: (200, s.certificate(q, principals=[])), SystemUnavailable, "another principal"),
    ("expired", lambda s, q: (200, s.certificate(q, valid_after=1, valid_before=2)), SystemUnavailable, "expired on 1970"),
    (
        "not yet",
        lambda s, q: (200, s.certificate(q, valid_after=2**33, valid_before=2**34)),
        SystemUnavailable,
        "not valid before",
    ),
    ("for ever", lambda s, q: (200, s.certificate(q, valid_before=2**40)), SystemUnavailable, "longer than asked"),
    ("another key", lambda s, q: (200, s.certificate(q, key=s.authority)), SystemUnavailable, "another key"),
]


@pytest.mark.parametrize(("answer", "kind", "words"), [row[1:] for row in ODD_ANSWERS], ids=[row[0] for row in ODD_ANSWERS])
async def test_an_answer_that_is_no_good_is_told_of_the_service_by_name(
    service: SigningService, answer: Answer, kind: type[Exception], words: str
) -> None:
    service.answer = lambda question: answer(service, question)
    with pytest.raises(kind, match=words) as raised:
        await asking(service).of("alice")
    assert "signing service of daint at 127.0.0.1:" in str(raised.value)
    assert "secret words" not in str(raised.value)


async def test_a_host_certificate_is_no_user_certificate(service: SigningService) -> None:
    def host(question: dict[str, Any]) -> tuple[int, bytes]:
        key = asyncssh.import_public_key(question["publicKey"])
        signed = service.authority.generate_host_certificate(key, "host", principals=["alice"])
        return 200, json.dumps({"certificate": signed.export_certificate("openssh").decode()}).encode()

    service.answer = host
    with pytest.raises(SystemUnavailable, match="no user certificate"):
        await asking(service).of("alice")


async def test_a_service_that_does_not_answer_is_given_up_in_time(service: SigningService) -> None:
    service.release.clear()
    with pytest.raises(SystemUnavailable, match=r"signing service of daint.*did not answer within 0.3 s"):
        await asking(service, signing_service_timeout_seconds=0.3).of("alice")


async def test_a_service_that_is_not_there_not_trusted_or_does_not_know_us(service: SigningService, tmp_path: Path) -> None:
    with pytest.raises(SystemUnavailable, match="cannot be reached"):
        await asking(service, signing_service_url="https://127.0.0.1:1/sign").of("alice")
    with pytest.raises(SystemUnavailable, match="cannot be reached"):
        await asking(service, signing_service_ca_file=None).of("alice")
    with pytest.raises(SystemUnavailable, match="signing_service_ca_file is no file of certificates"):
        await asking(service, signing_service_ca_file=str(tmp_path / "nowhere")).of("alice")
    with pytest.raises(SystemUnavailable, match=r"answered 401.*signing_service_token"):
        await asking(service, signing_service_token="wrong").of("alice")
    assert service.questions == []
