"""Which cause is named for which numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stagecoach.agent.host_advice import HostFacts, host_advice, host_facts
from stagecoach.agent.network_report import Failure, NetworkReport
from stagecoach.agent.network_verdicts import _FAILURES, verdicts_of

MIB = 2**20
EXPECTED = 12.5e6


def report(**measured: Any) -> NetworkReport:
    usual = {
        "connect_seconds": [0.05] * 5,
        "round_trip_seconds": 0.05,
        "median_round_trip_seconds": 0.052,
        "longest_round_trip_seconds": 0.06,
        "round_trips": 20,
        "clock_skew_seconds": 0.3,
        "put_bytes_per_second": 90e6,
        "get_bytes_per_second": 90e6,
        "sent_segments": 50_000,
        "retransmitted_segments": 0,
        "largest_send_buffer_bytes": 32 * MIB,
        "largest_receive_buffer_bytes": 32 * MIB,
    }
    return NetworkReport("dtn.example", 8443, **{**usual, **measured})


def causes(found: NetworkReport) -> list[str]:
    return [verdict.code for verdict in verdicts_of(found, expected_bytes_per_second=EXPECTED) if verdict.level != "advice"]


def test_a_fast_path_is_good_however_long() -> None:
    assert causes(report()) == ["good"]


def test_a_full_window_on_a_long_path_is_latency_and_the_buffer_is_named() -> None:
    found = report(round_trip_seconds=0.2, put_bytes_per_second=1.2e6, largest_send_buffer_bytes=256 * 1024)
    [verdict] = verdicts_of(found, expected_bytes_per_second=EXPECTED)
    assert verdict.code == "latency"
    assert "0.2 MiB" in verdict.words
    assert "1.31 MB/s" in verdict.words


def test_a_slow_long_path_without_loss_is_latency_also_when_the_other_ends_window_is_the_limit() -> None:
    assert causes(report(round_trip_seconds=0.3, put_bytes_per_second=2e6)) == ["latency"]


def test_packets_sent_again_are_loss_also_on_a_long_path() -> None:
    assert causes(report(round_trip_seconds=0.2, put_bytes_per_second=1e6, retransmitted_segments=200)) == ["loss"]


def test_a_few_packets_sent_again_are_nothing() -> None:
    assert causes(report(retransmitted_segments=2, sent_segments=100)) == ["good"]
    assert causes(report(retransmitted_segments=20, sent_segments=50_000)) == ["good"]


def test_tries_that_stand_still_are_loss_where_nobody_counts_packets() -> None:
    assert causes(report(sent_segments=None, retransmitted_segments=None, stalls=3)) == ["loss"]
    assert causes(report(sent_segments=None, retransmitted_segments=None, failed_connects=2)) == ["loss"]
    assert causes(report(stalls=1)) == ["good"]


def test_a_slow_short_path_without_loss_is_slow() -> None:
    assert causes(report(round_trip_seconds=0.001, median_round_trip_seconds=0.002, get_bytes_per_second=3e6)) == ["slow"]


def test_a_busy_receiver_is_no_distance() -> None:
    assert causes(report(round_trip_seconds=0.002, median_round_trip_seconds=0.9)) == ["slow_answers"]


@pytest.mark.parametrize(
    ("skew", "expected"), [(5.0, ["good"]), (-59.0, ["good"]), (70.0, ["clock_wrong"]), (-7000.0, ["clock_wrong"])]
)
def test_clocks_may_differ_a_little(skew: float, expected: list[str]) -> None:
    assert causes(report(clock_skew_seconds=skew)) == expected


def test_a_refused_signature_is_the_clocks_fault_when_that_is_wrong() -> None:
    failure = Failure("request", "wrong_key", "HTTP 403")
    assert causes(report(failure=failure)) == ["wrong_key"]
    assert causes(report(failure=failure, clock_skew_seconds=4000.0)) == ["clock_wrong"]


@pytest.mark.parametrize("code", sorted(_FAILURES))
def test_every_failure_is_one_cause_in_words(code: str) -> None:
    [verdict] = verdicts_of(
        NetworkReport("dtn.example", 8443, failure=Failure("tcp", code, "detail")), expected_bytes_per_second=1
    )
    assert (verdict.code, verdict.level) == (code, "failure")
    assert "dtn.example" in verdict.words or "clock" in verdict.words
    assert verdict.words.endswith(".")


def machine(tmp_path: Path, **settings: str) -> HostFacts:
    usual = {
        "net/ipv4/tcp_wmem": "4096 65536 33554432",
        "net/ipv4/tcp_rmem": "4096 87380 33554432",
        "net/core/wmem_max": "67108864",
        "net/core/rmem_max": "67108864",
        "net/ipv4/tcp_congestion_control": "cubic",
        "net/ipv4/tcp_available_congestion_control": "reno cubic",
        "net/core/default_qdisc": "fq_codel",
        "net/ipv4/tcp_mtu_probing": "1",
        "net/ipv4/tcp_window_scaling": "1",
        "net/ipv4/tcp_sack": "1",
        "net/ipv4/tcp_timestamps": "1",
        "mtu": "9000",
        **settings,
    }
    mtu = usual.pop("mtu")
    for name, value in usual.items():
        (tmp_path / "proc/sys" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/sys" / name).write_text(value + "\n")
    (tmp_path / "proc/net").mkdir()
    (tmp_path / "proc/net/route").write_text("Iface\tDestination\tGateway\nlo\t0000007F\t0\neth1\t00000000\t010200C0\n")
    (tmp_path / "sys/class/net/eth1").mkdir(parents=True)
    (tmp_path / "sys/class/net/eth1/mtu").write_text(mtu + "\n")
    return host_facts(tmp_path / "proc", tmp_path / "sys")


def test_a_well_tuned_machine_gets_no_advice(tmp_path: Path) -> None:
    assert host_advice(machine(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "value", "code", "line"),
    [
        ("net/ipv4/tcp_wmem", "4096 16384 4194304", "send_buffer_small", "net.ipv4.tcp_wmem = 4096 65536 33554432"),
        ("net/ipv4/tcp_rmem", "4096 131072 6291456", "receive_buffer_small", "net.ipv4.tcp_rmem = 4096 87380 33554432"),
        ("net/core/wmem_max", "212992", "core_send_buffer_small", "net.core.wmem_max = 67108864"),
        ("net/core/rmem_max", "212992", "core_receive_buffer_small", "net.core.rmem_max = 67108864"),
        ("net/ipv4/tcp_congestion_control", "reno", "congestion_control_slow", "net.ipv4.tcp_congestion_control = cubic"),
        ("net/ipv4/tcp_congestion_control", "bbr", "pacing_missing", "net.core.default_qdisc = fq"),
        ("net/ipv4/tcp_window_scaling", "0", "tcp_window_scaling_off", "set it to 1"),
        ("net/ipv4/tcp_mtu_probing", "0", "mtu_probing_off", "net.ipv4.tcp_mtu_probing = 1"),
        ("mtu", "1500", "mtu_ordinary", "9000"),
        ("mtu", "1400", "mtu_small", "1400"),
    ],
)
def test_each_setting_has_its_advice_with_the_line_to_write(tmp_path: Path, name: str, value: str, code: str, line: str) -> None:
    [verdict] = host_advice(machine(tmp_path, **{name: value}))
    assert (verdict.code, verdict.level) == (code, "advice")
    assert line in verdict.words


def test_buffers_do_not_matter_on_a_short_path(tmp_path: Path) -> None:
    facts = machine(tmp_path, **{"net/ipv4/tcp_wmem": "4096 16384 4194304"})
    assert host_advice(facts, round_trip_seconds=0.001) == []
    assert len(host_advice(facts, round_trip_seconds=0.1)) == 1


def test_a_system_that_tells_nothing_gets_no_advice(tmp_path: Path) -> None:
    assert host_facts(tmp_path, tmp_path) == HostFacts()
    assert host_advice(HostFacts()) == []
