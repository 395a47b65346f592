"""HTTPS with a private authority, with and without a proxy in between."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.mover.clocks import QuickClock
from tests.unit.mover.faulty_store import PART, FaultyStore, Tunnel, some_bytes

from stagecoach.mover.stagecoach_mover import fetch, put

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=store"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path.with_name("ca.pem"))]
    subprocess.run(["openssl", *asked.split(), *more], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_name("ca.pem").read_text())
    return path


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    monkeypatch.setenv("STAGECOACH_STALL_SECONDS", "5")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("ca.pem")))
    with FaultyStore(certificate=certificate).serving() as store:
        yield store


def round_trip(store: FaultyStore, folder: Path) -> None:
    data = some_bytes(5 * PART + 7)
    (folder / "source").write_bytes(data)
    receipt = put(store.put_ticket(os.fsencode(folder / "source"), len(data)), clock=QuickClock())
    assert receipt["ok"], receipt
    receipt = fetch(store.fetch_ticket(os.fsencode(folder / "target"), len(data)), clock=QuickClock())
    assert receipt["ok"], receipt
    assert (folder / "target").read_bytes() == data


def test_a_private_authority_is_trusted_when_the_environment_names_it(tls: FaultyStore, tmp_path: Path) -> None:
    round_trip(tls, tmp_path)


def test_a_store_that_is_not_trusted_is_refused_at_once(
    tls: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    receipt = fetch(tls.fetch_ticket(os.fsencode(tmp_path / "target"), 3), clock=QuickClock())
    assert receipt["code"] == "store_refused"
    assert "certificate" in receipt["message"]
    assert receipt["retries"] == 0


def test_https_goes_through_the_tunnel_of_a_proxy(tls: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tunnel.serving() as port:
        monkeypatch.setenv("https_proxy", f"http://user:p%40ss@127.0.0.1:{port}")
        round_trip(tls, tmp_path)
    assert Tunnel.seen
    assert set(Tunnel.seen) == {(f"127.0.0.1:{tls.port}", "Basic dXNlcjpwQHNz")}
