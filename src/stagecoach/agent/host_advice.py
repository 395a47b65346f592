"""How this machine is set up for long, fast paths, and what ESnet's tuning guide (fasterdata.es.net) would change.

Reading only: nothing is ever changed here, since that is for who runs the machine to decide.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from stagecoach.agent.network_report import Verdict

# ESnet's for a host with 10 Gbit/s; for 100 Gbit/s over long paths more.
ADVISED_BUFFER_BYTES = 32 * 2**20
ADVISED_CORE_BUFFER_BYTES = 64 * 2**20
_GOOD_CONGESTION_CONTROL = ("bbr", "cubic", "htcp")
_JUMBO_MTU_BYTES = 9000
_ORDINARY_MTU_BYTES = 1500
_SHORT_ROUND_TRIP_SECONDS = 0.005
_NEEDED_ON = ("tcp_window_scaling", "tcp_sack", "tcp_timestamps")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """None or empty for what this system does not tell. ``mtu_bytes`` is that of the interface of the default route."""

    largest_send_buffer_bytes: int | None = None
    largest_receive_buffer_bytes: int | None = None
    core_send_buffer_bytes: int | None = None
    core_receive_buffer_bytes: int | None = None
    congestion_control: str = ""
    available_congestion_control: tuple[str, ...] = ()
    queueing_discipline: str = ""
    mtu_probing: int | None = None
    interface: str = ""
    mtu_bytes: int | None = None
    switched_off: tuple[str, ...] = ()


def host_facts(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> HostFacts:
    """Of this machine, as Linux tells."""
    ipv4, core = proc / "sys/net/ipv4", proc / "sys/net/core"
    interface = _default_interface(_text(proc / "net/route"))
    return HostFacts(
        largest_send_buffer_bytes=_last_number(ipv4 / "tcp_wmem"),
        largest_receive_buffer_bytes=_last_number(ipv4 / "tcp_rmem"),
        core_send_buffer_bytes=_last_number(core / "wmem_max"),
        core_receive_buffer_bytes=_last_number(core / "rmem_max"),
        congestion_control=_text(ipv4 / "tcp_congestion_control"),
        available_congestion_control=tuple(_text(ipv4 / "tcp_available_congestion_control").split()),
        queueing_discipline=_text(core / "default_qdisc"),
        mtu_probing=_last_number(ipv4 / "tcp_mtu_probing"),
        interface=interface,
        mtu_bytes=_last_number(sys / "class/net" / interface / "mtu") if interface else None,
        switched_off=tuple(name for name in _NEEDED_ON if _last_number(ipv4 / name) == 0),
    )


def host_advice(facts: HostFacts, *, round_trip_seconds: float | None = None) -> list[Verdict]:
    """What to change, with the line for /etc/sysctl.d. On a path known to be short, buffers are left as they are."""
    found = [
        _advice(f"{name}_off", f"net.ipv4.{name} is switched off, and no long path is fast without it: set it to 1.")
        for name in facts.switched_off
    ]
    if round_trip_seconds is None or round_trip_seconds >= _SHORT_ROUND_TRIP_SECONDS:
        found += _buffers(facts)
    return found + _congestion(facts) + _packets(facts)


def _buffers(facts: HostFacts) -> list[Verdict]:
    found = []
    for code, name, least, has in (
        ("send_buffer_small", "tcp_wmem", "4096 65536", facts.largest_send_buffer_bytes),
        ("receive_buffer_small", "tcp_rmem", "4096 87380", facts.largest_receive_buffer_bytes),
    ):
        if has is not None and has < ADVISED_BUFFER_BYTES:
            at_100_ms = has / 0.1 / 1e6
            found.append(
                _advice(
                    code,
                    f"net.ipv4.{name} lets one stream's buffer grow to {has / 2**20:.3g} MiB, enough for {at_100_ms:.3g} MB/s"
                    f" over 100 ms. Set net.ipv4.{name} = {least} {ADVISED_BUFFER_BYTES}.",
                )
            )
    for code, name, has in (
        ("core_send_buffer_small", "wmem_max", facts.core_send_buffer_bytes),
        ("core_receive_buffer_small", "rmem_max", facts.core_receive_buffer_bytes),
    ):
        if has is not None and has < ADVISED_CORE_BUFFER_BYTES:
            found.append(
                _advice(
                    code,
                    f"net.core.{name} is {has / 2**20:.3g} MiB, which bounds programs that choose their buffer themselves."
                    f" Set net.core.{name} = {ADVISED_CORE_BUFFER_BYTES}.",
                )
            )
    return found


def _congestion(facts: HostFacts) -> list[Verdict]:
    if facts.congestion_control and facts.congestion_control not in _GOOD_CONGESTION_CONTROL:
        better = next((name for name in _GOOD_CONGESTION_CONTROL if name in facts.available_congestion_control), "cubic")
        return [
            _advice(
                "congestion_control_slow",
                f"TCP uses {facts.congestion_control} here, which recovers slowly on long paths."
                f" Set net.ipv4.tcp_congestion_control = {better}.",
            )
        ]
    if facts.congestion_control == "bbr" and facts.queueing_discipline not in {"", "fq"}:
        return [
            _advice(
                "pacing_missing",
                f"TCP uses bbr, which is best paced by fq, not {facts.queueing_discipline}. Set net.core.default_qdisc = fq.",
            )
        ]
    return []


def _packets(facts: HostFacts) -> list[Verdict]:
    if facts.mtu_bytes is None:
        return []
    if facts.mtu_bytes < _ORDINARY_MTU_BYTES:
        words = (
            f"{facts.interface} has an MTU of {facts.mtu_bytes} bytes, as in a tunnel or on a virtual network; packets are small"
            " and cost more time each. If the way allows, use 1500, or 9000 in a data transfer network."
        )
        return [_advice("mtu_small", words)]
    if facts.mtu_bytes == _ORDINARY_MTU_BYTES:
        return [
            _advice("mtu_ordinary", f"{facts.interface} has an MTU of 1500 bytes. If all the way allows, 9000 saves much work.")
        ]
    if facts.mtu_bytes >= _JUMBO_MTU_BYTES and facts.mtu_probing == 0:
        words = (
            f"{facts.interface} has an MTU of {facts.mtu_bytes} bytes, and where a router drops such packets without a word a"
            " connection would hang. Set net.ipv4.tcp_mtu_probing = 1."
        )
        return [_advice("mtu_probing_off", words)]
    return []


def _advice(code: str, words: str) -> Verdict:
    return Verdict(code, "advice", words)


def _text(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(encoding="ascii", errors="replace").strip()
    return ""


def _last_number(file: Path) -> int | None:
    words = _text(file).split()
    return int(words[-1]) if words and words[-1].isdigit() else None


def _default_interface(routes: str) -> str:
    for line in routes.splitlines()[1:]:
        words = line.split()
        if len(words) > 1 and words[1] == "00000000":
            return words[0]
    return ""
