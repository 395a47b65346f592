"""A command in the terms of a copy: where to, under which name, how fast; and what is told of it afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stagecoach.agent.errands import code_of, errand_of_send, errand_of_send_to_store
from stagecoach.agent.rates import Rates
from stagecoach.agent.rclone_gate import require_allowed
from stagecoach.agent.rclone_words import Trouble
from stagecoach.agent.receiver_address import DEFAULT_PORT, ReceiverAddress, receiver_address
from stagecoach.core.errors import PermissionRefused, SettingsError
from stagecoach.wire.agent import Secret
from stagecoach.wire.direct_commands import MOST_RATES, SendSpec, SendToStoreSpec

KEY = Secret(access_key_id="SCKEY", secret_access_key="the secret")
MIB = 2**20


def send(**more: Any) -> SendSpec:
    endpoint = {"host": "2001:db8::7", "port": 8444, "certificateSha256": "ab" * 32}
    return SendSpec.model_validate(
        {"transferId": "t1", "sourcePath": "/run 1/data", "isDirectory": False, "endpoint": endpoint, **more}
    )


def store(**more: Any) -> SendToStoreSpec:
    given = {"sourcePath": "/run 1/data", "isDirectory": False, "endpoint": {"host": "s3.example", "port": 9000}, "bucket": "b"}
    return SendToStoreSpec.model_validate({**given, **more})


def test_a_receiver_is_believed_by_its_fingerprint_and_told_nothing_of_names() -> None:
    errand = errand_of_send(send(fileName="another"), KEY)
    assert errand.name == "data"
    assert errand.endpoint.certificate_sha256 == "ab" * 32
    to = errand.destination(Path("/state/there.pem"))
    assert to.endpoint == "https://[2001:db8::7]:8444"
    assert to.remote()["_root"] == "data/"
    assert to.remote()["provider"] == "Rclone"
    assert "the secret" not in repr((errand, to))
    assert errand_of_send(send(isDirectory=True), KEY).name is None


def test_a_store_is_any_store() -> None:
    errand = errand_of_send_to_store(store(folder="/a/b/", fileName="new name"), KEY)
    assert errand.name == "new name"
    assert errand.destination(None).remote()["_root"] == "b/a/b/"
    plain = errand_of_send_to_store(store(endpoint={"host": "s3", "port": 80, "tls": False}), KEY).destination(None)
    assert plain.endpoint == "http://s3:80"
    require_allowed("sync/copy", {"dstFs": plain.remote()}, [])
    with pytest.raises(PermissionRefused):
        require_allowed("sync/copy", {"dstFs": {**plain.remote(), "provider": "Rclone"}}, [])
    # Nothing of ours is written into somebody's store to see how fast it is.
    assert errand.bounds(10**12).probe_bytes == 0


def test_a_probe_is_small_beside_what_is_sent() -> None:
    errand = errand_of_send(send(), KEY)
    assert errand.bounds(MIB).probe_bytes == 0
    assert errand.bounds(320 * MIB).probe_bytes == 10 * MIB
    assert errand.bounds(10**12).probe_bytes == 64 * MIB


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("port_closed", "receiver_lost"),
        ("receiver_silent", "receiver_lost"),
        ("key_refused", "receiver_lost"),
        ("no_space", "receiver_full"),
        ("receiver_failed", "receiver_failed"),
        ("rclone_unavailable", "interrupted"),
        ("source_changed", "source_changed"),
    ],
)
def test_codes_are_those_that_the_service_knows(found: str, told: str) -> None:
    assert code_of(Trouble(found, "", retryable=True)) == told


def test_rates_are_few_however_long_it_takes() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    for second in range(100_000):
        now = float(second)
        rates.add(second * 10)
    points = rates.ended(1_000_000)
    assert MOST_RATES / 4 < len(points) <= MOST_RATES
    assert points == sorted(points)
    assert points[0] == (0.0, 0)
    assert points[-1] == (99_999.0, 1_000_000)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("node.example", "node.example", DEFAULT_PORT),
        ("node.example:9000", "node.example", 9000),
        ("192.0.2.7:1", "192.0.2.7", 1),
        ("[2001:db8::7]", "2001:db8::7", DEFAULT_PORT),
        ("[2001:db8::7]:9000", "2001:db8::7", 9000),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert receiver_address(text) == ReceiverAddress(host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":9000", "a:b", "host:0", "host:70000", "2001:db8::7", "https://host", "a b", "a..b", ".a", "a..", "a" * 64],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        receiver_address(text)
