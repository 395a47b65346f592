"""One failed look makes nobody ill."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stagecoach.core.health import Probe, first_health


def beliefs(looks: str) -> str:
    """What is believed after each look: + for well, - for ill."""
    probes = [Probe(datetime(2030, 1, 1, tzinfo=UTC), 0.1, look == "+", look) for look in looks]
    health = first_health(probes[0])
    believed = ["+" if health.is_healthy else "-"]
    for probe in probes[1:]:
        health = health.after(probe)
        assert health.probe is probe
        believed.append("+" if health.is_healthy else "-")
    return "".join(believed)


@pytest.mark.parametrize(
    ("looks", "believed"),
    [
        ("+", "+"),
        ("-", "-"),
        ("+-+", "+++"),
        ("+--+", "++++"),
        ("+---", "+++-"),
        ("+--+--+---", "+++++++++-"),
        ("-+", "--"),
        ("-++", "--+"),
        ("-+-++", "----+"),
        ("+---+-++", "+++----+"),
    ],
)
def test_what_is_believed(looks: str, believed: str) -> None:
    assert beliefs(looks) == believed
