"""A wide area network between two network namespaces, without the kernel's netem.

``wan.py NAMESPACE_A NAMESPACE_B SOCKET [NAME=VALUE …]`` gives each namespace a TUN device ``wan0`` (10.77.0.1 and
10.77.0.2) and carries the packets between them by hand. The names are those of ``Settings``; they can be changed
while it runs (``control.py SOCKET NAME=VALUE …``).
"""

from __future__ import annotations

import collections
import fcntl
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from deploy.testbed.control import Controls
from deploy.testbed.namespaces import network_of

ADDRESSES = ("10.77.0.1", "10.77.0.2")
DEVICE = "wan0"
MTU_BYTES = 1500
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKETS_AT_ONCE = 64
TCP, UDP = 6, 17


@dataclass(frozen=True)
class Settings:
    """Of both directions alike; it can change under packets that are on their way, which keep their order."""

    delay_ms: float = 0  # one way
    loss: float = 0  # of each packet, between 0 and 1
    rate_mbit: float = 0  # 0: as fast as this program is
    queue_bytes: int = 1_000_000  # waiting for the rate; what is more is dropped
    closed_ports: tuple[int, ...] = ()  # packets to these are dropped, as by a firewall

    def __post_init__(self) -> None:
        object.__setattr__(self, "closed_ports", tuple(self.closed_ports))
        bad = [field.name for field in fields(self)[:4] if not _is_amount(getattr(self, field.name))]
        bad += ["closed_ports"] if not all(isinstance(port, int) and 0 < port < 65536 for port in self.closed_ports) else []
        if bad or self.loss > 1:
            raise ValueError(f"not usable: {', '.join(bad or ['loss'])}")


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


class Direction:
    """What one side sends: lost, dropped, or due at the other side later. Knows no clock and no device."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._under_way: collections.deque[tuple[float, bytes]] = collections.deque()
        self._free_at = 0.0
        self.counts = {"packets": 0, "bytes": 0, "lost": 0, "overflowed": 0, "shut_out": 0}

    def arrive(self, packet: bytes, now: float, settings: Settings) -> None:
        if settings.closed_ports and destination_port(packet) in settings.closed_ports:
            self.counts["shut_out"] += 1
            return
        if settings.loss and self._chance() < settings.loss:
            self.counts["lost"] += 1
            return
        due = now
        if settings.rate_mbit:
            bytes_per_second = settings.rate_mbit * 125_000
            begins = max(now, self._free_at)
            if (begins - now) * bytes_per_second + len(packet) > settings.queue_bytes:
                self.counts["overflowed"] += 1
                return
            self._free_at = due = begins + len(packet) / bytes_per_second
        due += settings.delay_ms / 1000
        if self._under_way:
            due = max(due, self._under_way[-1][0])
        self._under_way.append((due, packet))

    def next_due(self) -> float | None:
        return self._under_way[0][0] if self._under_way else None

    def leave(self, now: float) -> Iterator[bytes]:
        """What has reached the other side."""
        while self._under_way and self._under_way[0][0] <= now:
            packet = self._under_way.popleft()[1]
            self.counts["packets"] += 1
            self.counts["bytes"] += len(packet)
            yield packet


def destination_port(packet: bytes) -> int | None:
    """Of an IPv4 packet with TCP or UDP in it; of a fragment, the first one only."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] not in (TCP, UDP) or packet[6] & 0x1F or packet[7]:
        return None
    begins = (packet[0] & 0xF) * 4 + 2
    return int.from_bytes(packet[begins : begins + 2], "big") if len(packet) >= begins + 2 else None


def open_device(namespace: str, address: str, peer: str) -> int:
    with network_of(namespace):
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    for words in (f"addr add {address} peer {peer} dev {DEVICE}", f"link set {DEVICE} mtu {MTU_BYTES} txqueuelen 2000 up"):
        subprocess.run(["ip", "-n", namespace, *words.split()], check=True)
    return device


def carry(devices: tuple[int, int], directions: tuple[Direction, Direction], controls: Controls[Settings]) -> None:
    """For ever."""
    routes = {source: (direction, sink) for source, sink, direction in zip(devices, devices[::-1], directions, strict=True)}
    poll = select.epoll()
    for device in devices:
        poll.register(device, select.EPOLLIN)
    while True:
        dues = [due for direction in directions if (due := direction.next_due()) is not None]
        for device, _ in poll.poll(max(0.0, min(dues) - time.monotonic()) if dues else None):
            take(device, routes[device][0], controls.settings)
        now = time.monotonic()
        for direction, sink in routes.values():
            for packet in direction.leave(now):
                os.write(sink, packet)


def take(device: int, direction: Direction, settings: Settings) -> None:
    """What waits at a device, but not so much that what is due has to wait."""
    for _ in range(PACKETS_AT_ONCE):
        try:
            packet = os.read(device, 65536)
        except BlockingIOError:
            return
        direction.arrive(packet, time.monotonic(), settings)


def main(namespace_a: str, namespace_b: str, socket_path: str, *words: str) -> None:
    settings = Settings(**{name: json.loads(value) for name, _, value in (word.partition("=") for word in words)})
    here, there = ADDRESSES
    devices = (open_device(namespace_a, here, there), open_device(namespace_b, there, here))
    chance = random.Random().random
    directions = (Direction(chance), Direction(chance))
    controls = Controls(socket_path, settings, lambda: {"from_a": directions[0].counts, "from_b": directions[1].counts})
    controls.serve()
    carry(devices, directions, controls)


if __name__ == "__main__":
    main(*sys.argv[1:])
