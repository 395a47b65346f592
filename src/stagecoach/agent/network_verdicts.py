"""Names the cause of what a network check measured: one cause for a failure, and for slowness loss before latency. Pure.

Loss is looked for first, since it makes a long path slow as well, and larger buffers would not help there.
"""

from __future__ import annotations

from stagecoach.agent.network_report import NetworkReport, Verdict

# From here on TCP does not fill a fast path any more (ESnet: 0.1 % is very much, a perfect path has none).
_LOSS_FRACTION = 0.001
_FEWEST_RETRANSMITTED = 3
_FEWEST_STALLS = 2
_LONG_ROUND_TRIP_SECONDS = 0.02
# A stream at this part of buffer / round trip or more is held by the buffer, not by the path.
_FULL_WINDOW = 0.25
_CLOCK_WARNING_SECONDS = 60.0
_CLOCK_REFUSED_SECONDS = 900.0
_SLOW_ANSWER_FACTOR = 5.0
_SLOW_ANSWER_SECONDS = 0.2

_FAILURES = {
    "dns_failed": "The name {host} cannot be resolved on this machine ({detail}). Check the spelling and /etc/resolv.conf.",
    "port_closed": "{host} answers, but nothing listens at port {port}: see whether the receiver runs, and at which port.",
    "no_answer": "Nobody answers at {host} port {port}: a firewall drops the packets, or the machine is down. Ask who runs"
    " the firewall at the receiver to let this machine in.",
    "unreachable": "There is no way from this machine to {host} ({detail}).",
    "tls_failed": "What answers at {host} port {port} does not speak TLS as it should ({detail}).",
    "wrong_certificate": "{host} port {port} shows another certificate than was announced ({detail}). Somebody may stand"
    " between, or the receiver was set up anew: ask its owner for the fingerprint.",
    "wrong_key": "{host} refuses the key of this transfer ({detail}). It was closed or has ended: ask for a new one.",
    "clock_wrong": "This machine's clock differs by {skew:.0f} s from that of {host}, and so signed requests are refused."
    " Set it by NTP (timedatectl set-ntp true).",
    "request_failed": "{host} accepts the connection but does not answer as a receiver does ({detail}).",
    "interrupted": "The connection to {host} broke under load ({detail}).",
}


def verdicts_of(report: NetworkReport, *, expected_bytes_per_second: float) -> list[Verdict]:
    """Failures first. Without any trouble one verdict, ``good``."""
    found = [*_failure(report), *_clock(report)]
    if report.failure is None or report.failure.step == "probe":
        found += _speed(report, expected_bytes_per_second)
    if not any(verdict.level in {"failure", "warning"} for verdict in found):
        found.insert(0, Verdict("good", "good", _good(report)))
    return found


def _failure(report: NetworkReport) -> list[Verdict]:
    if report.failure is None:
        return []
    code, skew = report.failure.code, report.clock_skew_seconds or 0.0
    # A signature made at the wrong time looks like one made with the wrong key.
    if code == "wrong_key" and abs(skew) >= _CLOCK_REFUSED_SECONDS:
        code = "clock_wrong"
    words = _FAILURES[code].format(host=report.host, port=report.port, detail=report.failure.detail, skew=abs(skew))
    return [Verdict(code, "failure", words)]


def _clock(report: NetworkReport) -> list[Verdict]:
    skew = report.clock_skew_seconds
    if skew is None or abs(skew) < _CLOCK_WARNING_SECONDS or (report.failure is not None and abs(skew) >= _CLOCK_REFUSED_SECONDS):
        return []
    side = "behind" if skew > 0 else "ahead of"
    return [
        Verdict(
            "clock_wrong",
            "warning",
            f"This machine's clock is {abs(skew):.0f} s {side} that of {report.host}; from {_CLOCK_REFUSED_SECONDS:.0f} s on"
            " signed requests are refused. Set it by NTP (timedatectl set-ntp true).",
        )
    ]


def _speed(report: NetworkReport, expected: float) -> list[Verdict]:
    loss = _loss(report)
    if loss:
        return loss
    speeds = [speed for speed in (report.put_bytes_per_second, report.get_bytes_per_second) if speed is not None]
    slow = bool(speeds) and min(speeds) < expected
    found = _latency(report, slow)
    if not found and slow:
        slowest = "to" if min(speeds) == report.put_bytes_per_second else "from"
        found.append(
            Verdict(
                "slow",
                "warning",
                f"One stream {slowest} {report.host} carries {_rate(min(speeds))}, less than the {_rate(expected)} expected,"
                " without loss and with a short round trip: the line, a firewall between, or a disk at either end is the limit.",
            )
        )
    return found + _slow_answers(report)


def _loss(report: NetworkReport) -> list[Verdict]:
    sent, again = report.sent_segments or 0, report.retransmitted_segments or 0
    if sent and again >= _FEWEST_RETRANSMITTED and again / sent >= _LOSS_FRACTION:
        seen = f"{100 * again / sent:.2g} % of what this machine sends is lost and sent again ({again} of {sent} packets)"
    elif report.stalls + report.failed_connects >= _FEWEST_STALLS:
        tries = report.round_trips + len(report.connect_seconds) + report.failed_connects
        seen = f"{report.stalls + report.failed_connects} of {tries} tries stood still for 0.2 s or more, as with lost packets"
    else:
        return []
    words = (
        f"On the way to {report.host}, {seen}. Loss makes a long path slow whatever the buffers are: look for a dirty fibre,"
        " a full switch or firewall, or a wrong duplex or MTU setting, and ask the network people on both sides."
    )
    return [Verdict("loss", "warning", words)]


def _latency(report: NetworkReport, slow: bool) -> list[Verdict]:
    trip = report.round_trip_seconds
    if trip is None or trip < _LONG_ROUND_TRIP_SECONDS:
        return []
    ways = (
        ("send to", report.put_bytes_per_second, report.largest_send_buffer_bytes),
        ("receive from", report.get_bytes_per_second, report.largest_receive_buffer_bytes),
    )
    for way, speed, buffer in ways:
        if slow and speed is not None and buffer is not None and speed >= _FULL_WINDOW * buffer / trip:
            return [
                Verdict(
                    "latency",
                    "warning",
                    f"A round trip to {report.host} takes {trip * 1e3:.0f} ms, and a stream's buffer here ends at"
                    f" {buffer / 2**20:.1f} MiB, so one stream can {way} it {_rate(buffer / trip)} at most. Raise the buffers"
                    " (see the advice for this machine) and use several streams.",
                )
            ]
    if slow:
        words = (
            f"A round trip to {report.host} takes {trip * 1e3:.0f} ms, and one stream is slow without loss: the distance is the"
            " limit, with the window of the other end or one that had no time to grow. Use several streams, and raise the"
            " buffers at both ends."
        )
        return [Verdict("latency", "warning", words)]
    return [
        Verdict(
            "latency", "advice", f"A round trip to {report.host} takes {trip * 1e3:.0f} ms; one stream is fast enough even so."
        )
    ]


def _slow_answers(report: NetworkReport) -> list[Verdict]:
    trip, median = report.round_trip_seconds, report.median_round_trip_seconds
    if trip is None or median is None or median < max(_SLOW_ANSWER_SECONDS, _SLOW_ANSWER_FACTOR * trip):
        return []
    return [
        Verdict(
            "slow_answers",
            "warning",
            f"{report.host} is near ({trip * 1e3:.0f} ms) but needs {median * 1e3:.0f} ms to answer a small request: it is busy.",
        )
    ]


def _good(report: NetworkReport) -> str:
    parts = [f"{report.host} port {report.port} is reached"]
    if report.round_trip_seconds is not None:
        parts.append(f"in {report.round_trip_seconds * 1e3:.1f} ms")
    if report.put_bytes_per_second is not None and report.get_bytes_per_second is not None:
        parts.append(
            f"and one stream carries {_rate(report.put_bytes_per_second)} to it and {_rate(report.get_bytes_per_second)} from it"
        )
    return " ".join(parts) + "."


def _rate(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e6:.3g} MB/s ({bytes_per_second * 8 / 1e6:.3g} Mbit/s)"
