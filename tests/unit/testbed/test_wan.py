"""The testbed's wide area network: when a packet arrives, and which one does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from deploy.testbed.wan import Direction, Settings, destination_port

PACKET = bytes(1000)


def certain() -> float:
    return 0.5


def segment(port: int, protocol: int = 6, options: int = 0, fragment: int = 0) -> bytes:
    """The beginning of an IPv4 packet."""
    header = bytearray(20 + options)
    header[0] = 0x45 + options // 4
    header[6:8] = fragment.to_bytes(2, "big")
    header[9] = protocol
    return bytes(header) + (50_000).to_bytes(2, "big") + port.to_bytes(2, "big") + bytes(16)


def due_times(direction: Direction, until: float, step: float = 0.001) -> list[float]:
    """When each packet left, to the step."""
    return [round(tick * step, 6) for tick in range(round(until / step) + 1) for _ in direction.leave(tick * step + 1e-9)]


def test_a_packet_arrives_after_the_delay_and_not_before() -> None:
    direction = Direction(certain)
    direction.arrive(PACKET, 10.0, Settings(delay_ms=25))
    assert direction.next_due() == pytest.approx(10.025)
    assert list(direction.leave(10.024)) == []
    assert list(direction.leave(10.026)) == [PACKET]
    assert direction.next_due() is None


def test_packets_follow_each_other_at_the_rate() -> None:
    direction = Direction(certain)
    for _ in range(5):
        direction.arrive(PACKET, 0.0, Settings(rate_mbit=8))  # one takes a millisecond
    assert due_times(direction, 0.01) == [0.001, 0.002, 0.003, 0.004, 0.005]
    assert direction.counts["bytes"] == 5000


def test_a_line_that_was_idle_has_not_saved_up_rate() -> None:
    direction = Direction(certain)
    settings = Settings(rate_mbit=8)
    direction.arrive(PACKET, 0.0, settings)
    direction.arrive(PACKET, 1.0, settings)
    direction.arrive(PACKET, 1.0, settings)
    assert due_times(direction, 1.1) == [0.001, 1.001, 1.002]


def test_what_exceeds_the_queue_is_dropped() -> None:
    direction = Direction(certain)
    for _ in range(10):
        direction.arrive(PACKET, 0.0, Settings(rate_mbit=8, queue_bytes=3000))
    assert due_times(direction, 0.02) == [0.001, 0.002, 0.003]
    assert direction.counts["overflowed"] == 7


def test_each_packet_takes_its_chance() -> None:
    chances = iter([0.09, 0.1, 0.5, 0.0])
    direction = Direction(lambda: next(chances))
    for number in range(4):
        direction.arrive(bytes([number]), 0.0, Settings(loss=0.1))
    assert list(direction.leave(0.0)) == [b"\x01", b"\x02"]
    assert direction.counts["lost"] == 2


def test_no_packet_overtakes_when_the_delay_shrinks() -> None:
    direction = Direction(certain)
    direction.arrive(b"first", 0.0, Settings(delay_ms=100))
    direction.arrive(b"second", 0.01, Settings(delay_ms=1))
    assert list(direction.leave(0.05)) == []
    assert list(direction.leave(0.1)) == [b"first", b"second"]


def test_a_closed_port_gets_nothing_while_others_do() -> None:
    direction = Direction(certain)
    settings = Settings(closed_ports=(8443,))
    for port in (8443, 8444):
        direction.arrive(segment(port), 0.0, settings)
    assert list(direction.leave(0.0)) == [segment(8444)]
    assert direction.counts["shut_out"] == 1


@pytest.mark.parametrize(
    ("packet", "port"),
    [
        (segment(443), 443),
        (segment(53, protocol=17), 53),
        (segment(443, options=12), 443),
        (segment(443, protocol=1), None),
        (segment(443, fragment=0x4000), 443),  # "do not fragment" is no fragment
        (segment(443, fragment=185), None),
        (segment(443)[:21], None),
        (b"\x60" + bytes(60), None),
        (b"", None),
    ],
)
def test_the_port_of_a_packet(packet: bytes, port: int | None) -> None:
    assert destination_port(packet) == port


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay_ms": -1},
        {"delay_ms": "25"},
        {"loss": 1.5},
        {"loss": float("nan")},
        {"rate_mbit": float("inf")},
        {"rate_mbit": True},
        {"closed_ports": [0]},
        {"closed_ports": [443.5]},
        {"closed_ports": 443},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    make: Callable[..., Settings] = Settings
    with pytest.raises((ValueError, TypeError)):
        make(**wrong)
