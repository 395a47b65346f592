"""Bytes go up and down, and ``stagecoach check`` proves it, with each way in that a centre may choose."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from tests.e2e.own_service import own_service
from tests.e2e.testbed import Testbed
from tests.fakes.signing_service import SigningService, signing_service

WAYS = ("certificate", "signed", "account", "account-certificate")


@pytest.fixture(scope="module")
def signer(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningService]:
    authority = asyncssh.read_private_key(testbed.environment["SSH_USER_CA_KEY"])
    with signing_service(tmp_path_factory.mktemp("signer"), authority) as service:
        yield service


@pytest.fixture(scope="module")
def own(testbed: Testbed, signer: SigningService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Testbed, Path]]:
    """The one cluster under four names, as four centres would reach it."""
    directory = tmp_path_factory.mktemp("ways-in")
    authority = {"certificate_authority": {"key_file": testbed.environment["SSH_USER_CA_KEY"], "ttl_seconds": 60}}
    account = {"service_account": {"username": testbed.environment["SSH_SERVICE_ACCOUNT"]}}
    credentials: dict[str, dict[str, Any]] = {
        "certificate": authority,
        "signed": {"certificate_authority": signer.settings(ttl_seconds=60)},
        "account": {"key_file": testbed.environment["SSH_KEYS_DIRECTORY"] + "/{user}", **account},
        "account-certificate": {**authority, **account},
    }

    def change(settings: dict[str, Any]) -> None:
        (plain,) = [system for system in settings["systems"] if system["name"] == testbed.system]
        settings["systems"] = []
        for name in WAYS:
            system = copy.deepcopy(plain)
            system["name"] = name
            system["ssh"]["credentials"] = credentials[name]
            settings["systems"].append(system)

    with own_service(testbed, directory, change) as service:
        yield service, directory / "own-settings.yaml"


@pytest.mark.parametrize("way", WAYS)
def test_up_and_down(own: tuple[Testbed, Path], way: str) -> None:
    service, _ = own
    name = f"t2 ways in $(touch {way}) it's"
    content = os.urandom(300_000)
    target = service.fresh(service.alice, name)
    try:
        assert service.upload(service.alice, target, content, way)["state"] == "done"
        assert target.read_bytes() == content
        assert target.stat().st_uid == service.alice.uid
        listed = service.alice.http.get(f"/filesystem/{way}/ops/ls", params={"path": str(service.alice.home)}).json()
        assert name in [entry["name"] for entry in listed["output"]]
        begun = service.begin_download(service.alice, target, way)
        assert begun.status_code == 201, begun.text
        staged = service.wait(service.alice, begun.json()["transferId"], "staged")
        assert staged["state"] == "staged", staged
        assert service.store.get(begun.json()["transferDirectives"]["downloadUrl"]).content == content
    finally:
        target.unlink(missing_ok=True)
    assert not (service.alice.home / way).exists()


def test_check_says_for_each_who_logged_in_with_what(own: tuple[Testbed, Path]) -> None:
    _, settings = own
    program = [sys.executable, "-m", "stagecoach", "check", "--settings", str(settings), "--user", "alice"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STAGECOACH_")}
    answer = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=200)
    lines = {line.split(": ", 1)[0]: line.split(": ", 1)[1] for line in answer.stdout.splitlines() if ": " in line}
    for way in WAYS:
        certified = way != "account"
        who = "xferd, which becomes alice" if way.startswith("account") else "alice"
        shown = (
            "a certificate for xferd, valid until " if way == "account-certificate" else "a certificate for alice, valid until "
        )
        assert f"logged in as {who}, with {shown if certified else 'key file '}" in lines[f"ok    {way} login"], answer.stdout
        assert lines[f"ok    {way} credential"].startswith(shown if certified else "key file "), answer.stdout
        assert f"ok    {way} scheduler" in lines, answer.stdout
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_check_of_a_user_whom_nobody_lets_in_says_what_to_look_at(own: tuple[Testbed, Path]) -> None:
    _, settings = own
    program = [sys.executable, "-m", "stagecoach", "check", "--settings", str(settings), "--user", "daemon"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STAGECOACH_")}
    answer = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=200)
    assert answer.returncode == 1
    wrong = {line.split(": ", 1)[0]: line for line in answer.stdout.splitlines() if line.startswith("WRONG")}
    assert "refused the login of daemon" in wrong["WRONG certificate login"]
    assert "TrustedUserCAKeys, and daemon must take the principal daemon" in wrong["WRONG certificate login"]
    assert "xferd may not become daemon" in wrong["WRONG account login"]
    assert "sudo -n -u daemon -- id -u" in wrong["WRONG account login"]
