"""The little server of parts: what it serves, to whom, and what it never does."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from stagecoach.agent.part_digests import KeptDigests, identity_of
from stagecoach.agent.parts import PartedFile, PartName
from stagecoach.agent.parts_source import Pace, PartsSource, Source, SourceChanged
from stagecoach.mover.stagecoach_mover import Handle

VERSION = "0123456789abcdef"
PART, SIZE = 700_000, 1_500_000
CONTENT = os.urandom(SIZE)
ALL = frozenset(PartName(file, part) for file in (1, 2) for part in (1, 2, 3))


def opener(path: Path) -> Callable[[], Handle]:
    return lambda: Handle(os.open(path, os.O_RDONLY))


class Served:
    def __init__(self, folder: Path, rate: int | None = None) -> None:
        self.paths = [folder / "one", folder / "two"]
        self.kept = KeptDigests(folder / "kept")
        sources = []
        for path in self.paths:
            path.write_bytes(CONTENT)
            status = path.stat()
            file = PartedFile(path.name, SIZE, PART, 1_600_000_000_999_999_999, VERSION)
            digests = self.kept.of("t1", path.name, identity_of(status), PART)
            sources.append(Source(file, identity_of(status), digests, opener(path)))
        self.sources = sources
        self.parts = PartsSource(sources, lambda: rate)
        self.parts.start()
        self.parts.want(ALL)
        self.url = urlsplit(self.parts.url)

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.url.port or 0, timeout=20)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def inside(self, path: str) -> str:
        return self.url.path + path

    def wait_for(self, true: Callable[[], bool]) -> None:
        """What is noted when the last byte has gone."""
        until = time.monotonic() + 10
        while not true():
            assert time.monotonic() < until
            time.sleep(0.005)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.parts.stop()


def test_parts_are_plain_files_of_a_folder_for_each_file(served: Served) -> None:
    status, headers, page = served.ask("GET", served.inside(""))
    assert (status, headers["Content-Type"]) == (200, "text/html")
    assert page.count(b"<a ") == 2
    _, _, page = served.ask("GET", served.inside(f"2-{VERSION}/"))
    assert [f'href="{number:06d}"'.encode() in page for number in (1, 2, 3, 4)] == [True, True, True, False]
    for part, content in ((1, CONTENT[:PART]), (2, CONTENT[PART : 2 * PART]), (3, CONTENT[2 * PART :])):
        for method in ("HEAD", "GET"):
            status, headers, body = served.ask(method, served.inside(f"1-{VERSION}/{part:06d}"))
            assert (status, int(headers["Content-Length"])) == (200, len(content))
            assert headers["Last-Modified"] == "Sun, 13 Sep 2020 12:26:40 GMT"
            assert body == (content if method == "GET" else b"")
        assert served.sources[0].digests.of(part) == hashlib.md5(content).hexdigest()
    assert served.sources[1].digests.of(1) is None
    served.wait_for(lambda: set(served.parts.served_whole()) == {PartName(1, part) for part in (1, 2, 3)})
    assert served.parts.trouble is None


def test_a_range_is_served_and_gives_no_digest(served: Served) -> None:
    for asked, begin, end in (("bytes=5-9", 5, 10), ("bytes=699990-", 699_990, PART), ("bytes=1-9999999", 1, PART)):
        status, headers, body = served.ask("GET", served.inside(f"1-{VERSION}/000001"), {"Range": asked})
        assert (status, headers["Content-Range"]) == (206, f"bytes {begin}-{end - 1}/{PART}")
        assert body == CONTENT[begin:end]
    assert served.sources[0].digests.of(1) is None
    assert served.parts.served_whole() == {}
    assert served.ask("GET", served.inside(f"1-{VERSION}/000001"), {"Range": "bytes=700000-"})[0] == 416
    assert served.ask("GET", served.inside(f"1-{VERSION}/000001"), {"Range": "bytes=9-5"})[0] == 416
    for odd in ("bytes=-5", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"):
        assert served.ask("GET", served.inside(f"1-{VERSION}/000001"), {"Range": odd})[2] == CONTENT[:PART]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "1",
        "1/",
        "1/000001",
        "../etc/passwd",
        "1/../../../etc/passwd",
        "1/1",
        "1/0000001",
        "1/000009",
        "3/",
        "3/000001",
        "%2e",
    ],
)
def test_nothing_is_there_for_who_does_not_know_the_path_or_asks_for_more(served: Served, path: str) -> None:
    secret = served.url.path.strip("/")
    assert len(secret) >= 40
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for before in ("/", f"/{wrong}/", "//", f"/{secret}", f"/x/{secret}/", f"http://127.0.0.1/{secret}/"):
        assert served.ask("GET", before + path)[0] == 404, before
    if path:
        assert served.ask("GET", served.inside(path))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "CONNECT"])
def test_nothing_can_be_done_but_read(served: Served, method: str) -> None:
    assert served.ask(method, served.inside(f"1-{VERSION}/000001"))[0] == 501


def test_it_listens_on_loopback_alone(served: Served) -> None:
    assert served.url.hostname == "127.0.0.1"
    assert served.parts._server.socket.getsockname()[0] == "127.0.0.1"


def test_what_has_arrived_is_not_listed_and_not_served(served: Served) -> None:
    served.parts.want(frozenset({PartName(2, 3)}))
    assert served.ask("GET", served.inside(""))[2].count(b"<a ") == 1
    assert served.ask("GET", served.inside(f"2-{VERSION}/"))[2].count(b"<a ") == 1
    assert served.ask("GET", served.inside(f"1-{VERSION}/"))[0] == 404
    assert served.ask("GET", served.inside(f"2-{VERSION}/000002"))[0] == 404
    assert served.ask("GET", served.inside(f"2-{VERSION}/000003"))[0] == 200


@pytest.mark.parametrize("change", ["content", "shorter", "another", "gone"])
def test_a_source_that_changed_is_never_served_whole(served: Served, change: str) -> None:
    path = served.paths[0]
    if change == "content":
        with path.open("r+b") as file:
            file.write(b"x")
    elif change == "shorter":
        os.truncate(path, 100)
    else:
        path.unlink()
        if change == "another":
            path.write_bytes(CONTENT)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        served.ask("GET", served.inside(f"1-{VERSION}/000001"))
    assert served.parts.trouble in {"source_changed", "source_unreadable"}
    assert served.sources[0].digests.of(1) is None
    with pytest.raises((SourceChanged, FileNotFoundError)):
        served.parts.digest(PartName(1, 1))


def test_a_digest_that_is_not_kept_is_made_of_the_source(served: Served) -> None:
    assert served.parts.digest(PartName(2, 3)) == hashlib.md5(CONTENT[2 * PART :]).hexdigest()
    served.sources[1].digests.add(2, "0" * 32)
    assert served.parts.digest(PartName(2, 2)) == "0" * 32


def test_its_end_ends_every_answer_and_keeps_the_digests(tmp_path: Path) -> None:
    served = Served(tmp_path, rate=200_000)
    connection = socket.create_connection(("127.0.0.1", served.url.port or 0), timeout=20)
    part = served.inside(f"1-{VERSION}/000001")
    connection.sendall(f"GET {part} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert connection.recv(10)
    served.sources[0].digests.add(3, "0" * 32)
    begun = time.monotonic()
    served.parts.stop()
    while connection.recv(65_536):
        assert time.monotonic() - begun < 2.0
    connection.close()
    assert served.kept.of("t1", "one", served.sources[0].identity, PART).of(3) == "0" * 32


class Waits(threading.Event):
    """Time goes by only while somebody waits."""

    def __init__(self, now: list[float]) -> None:
        super().__init__()
        self.now = now
        self.waited = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.now[0] += timeout
        self.waited += timeout
        return self.is_set()


def test_a_pace_is_kept_by_all_together() -> None:
    now = [50.0]
    pace, ended = Pace(lambda: 1000, lambda: now[0]), Waits(now)
    for waited in (0.0, 0.5, 1.0, 1.5):
        pace.keep(500, ended)
        assert ended.waited == pytest.approx(waited, abs=0.01)
    now[0] += 10.0
    pace.keep(500, ended)
    assert ended.waited == pytest.approx(1.5, abs=0.01), "what was not used is not saved up, nor held against anybody"
    assert Pace(lambda: 1024).piece_bytes == 4096


def test_a_pace_may_change_while_somebody_waits() -> None:
    now, rate = [50.0], [100]
    ended = Waits(now)

    def rate_now() -> int | None:
        return rate[0] if now[0] < 60.0 else None

    pace = Pace(rate_now, lambda: now[0])
    pace.keep(100_000, ended)
    assert ended.waited == 0.0
    pace.keep(1, ended)
    assert ended.waited == pytest.approx(10.0, abs=0.6), "at the first rate it would have been 1000 s"
    assert pace.piece_bytes == 512 * 1024
