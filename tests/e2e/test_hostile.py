"""Hostile words in every place of every route: nothing is run, nothing outside the roots is made or read, no 5xx.

The routes and their places come from openapi/openapi.json, so a new route is covered when it is there.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.e2e import hostile_corpus as corpus
from tests.e2e.hostile_corpus import Canary
from tests.e2e.hostile_walk import METHODS, Case, Walk, read_document
from tests.e2e.testbed import REPOSITORY, Testbed

AT_ONCE = 8
SECRET = "what-lies-outside-is-nobodys-business"
# Answers that a busy service may give, with a code of ours.
BUSY = (503, 507)
LARGE_BODY_BYTES = 1_000_000


@dataclass
class Ground:
    """Where it happens: alice's own directory with links out, a directory outside that all may write, and the canary's."""

    home: Path
    outside: Path
    canary: Canary

    def tree_outside(self) -> list[tuple[str, int, int]]:
        return sorted(
            (str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in [self.outside, *self.outside.rglob("*")]
        )


@pytest.fixture
def ground(testbed: Testbed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    token = secrets.token_hex(6)
    outside = Path(f"/var/tmp/hostile-outside-{token}")
    home = testbed.alice.home / f"hostile-{token}"
    links = home / "links"
    links.mkdir(parents=True)
    (outside / "d").mkdir(parents=True)
    (outside / "secret").write_text(SECRET)
    for path in (outside, outside / "d", outside / "secret"):
        path.chmod(0o777)
    runs = outside.with_name(f"hostile-canary-{token}")
    runs.mkdir()
    runs.chmod(0o777)
    for name, target in (
        ("out", outside),
        ("out-file", outside / "secret"),
        ("chain", links / "out"),
        ("loop", links / "loop"),
        ("nothing", outside / "missing"),
        ("root", "/"),
        ("relative-out", "../" * 8 + str(outside).strip("/")),
        ("home-of-bob", testbed.bob.home),
        ("null", "/dev/null"),
        ("memory", "/proc/self"),
    ):
        (links / name).symlink_to(target)
    os.mkfifo(links / "pipe")
    (home / "file").write_bytes(b"mine")
    account = pwd.getpwnam(testbed.alice.name)
    for path in (home, links, *links.iterdir(), home / "file"):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    try:
        yield Ground(home, outside, Canary(runs, token))
    finally:
        for path in (home, outside, runs):
            shutil.rmtree(path, ignore_errors=True)


@dataclass
class Seen:
    """What one case brought: its status, what is wrong with that, and the transfer that it made."""

    case: Case
    status: int
    trouble: str | None
    transfer_id: str | None = None


def send(http: httpx.Client, case: Case) -> Seen:
    """Ask, and look at the answer as anybody could."""
    try:
        with http.stream(case.method, case.url, headers=case.headers, content=case.content) as answer:  # type: ignore[arg-type]
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                return Seen(case, answer.status_code, None)
            text = answer.read().decode("utf-8", "replace")
    except httpx.TransportError as error:
        # Who is refused for the size of a body while it still comes may find the line closed before the answer.
        is_too_large = len(case.content or b"") > LARGE_BODY_BYTES
        return Seen(case, 0, None if is_too_large else f"no answer: {type(error).__name__}: {error}")
    trouble, made = None, None
    if SECRET in text or "root:x:0:0" in text:
        trouble = "the answer shows what lies outside"
    elif case.is_refused_token and answer.status_code != 401:
        trouble = f"{answer.status_code} to a token that is none"
    elif case.place == "token" and len(case.word) > 12 and case.word.split()[-1] in text:
        trouble = "the answer repeats the token"
    elif answer.status_code >= 400:
        trouble = _no_problem_of_ours(answer.status_code, text)
    elif answer.status_code == 201:
        made = json.loads(text).get("transferId")
    return Seen(case, answer.status_code, trouble, made)


def _no_problem_of_ours(status: int, text: str) -> str | None:
    try:
        body = json.loads(text)
    except ValueError:
        return f"{status} without JSON: {text[:200]}"
    if not isinstance(body, dict) or not {"errorType", "code", "message"} <= set(body) or not body["code"] or not body["message"]:
        return f"{status} in another shape: {text[:200]}"
    if status >= 500 and (status not in BUSY or body["code"] == "internal_error"):
        return f"{status}: {text[:200]}"
    if "Traceback" in text or "site-packages" in text:
        return f"{status} shows our insides: {text[:200]}"
    return None


@pytest.mark.timeout(900)  # about three minutes on two cores that others use as well
def test_no_hostile_word_is_run_and_nothing_outside_is_made_or_read(testbed: Testbed, ground: Ground) -> None:
    alice = testbed.alice
    own = testbed.begin_upload(alice, ground.home / "held", 10)
    assert own.status_code == 201, own.text
    transfer_id = own.json()["transferId"]
    job_id = own.json()["transferJob"]["jobId"]
    walks = [
        Walk(str(ground.home), str(ground.outside), ground.canary, transfer_id=transfer_id, job_id=job_id, system=system)
        for system in (testbed.system, "testbed-account")
    ]
    before = ground.tree_outside()
    cases = list(walks[0].cases())
    # The system whose jobs carry the account in their directives is where an account could do harm.
    cases += [case for case in walks[1].cases() if case.place == "body account"]
    # What others need is removed last.
    cases.sort(key=lambda case: case.route.endswith("/rm"))
    assert walks[0].corpus_size >= 300
    routes = {(case.method, case.route) for case in cases}
    assert len(cases) >= 10 * len(routes)

    limits = httpx.Limits(max_connections=AT_ONCE)
    with (
        httpx.Client(base_url=testbed.url, headers=alice.http.headers, timeout=120, limits=limits) as http,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):

        def ask(case: Case) -> Seen:
            seen = send(http, case)
            if seen.transfer_id is not None and seen.transfer_id != transfer_id:
                shown = testbed.show(alice, seen.transfer_id)
                real = os.path.realpath(os.path.dirname(shown["path"]))
                if not f"{real}/".startswith(f"{alice.home}/"):
                    seen.trouble = f"a transfer of {shown['path']!r}"
                # A hidden name in the answer of a cancelled transfer would be one that is left.
                alice.http.delete(f"/transfers/{seen.transfer_id}")
            return seen

        seen = list(pool.map(ask, cases))

    alice.http.delete(f"/transfers/{transfer_id}")
    wrong = [f"{one.case}: {one.trouble}" for one in seen if one.trouble is not None]
    assert not wrong, f"{len(wrong)} of {len(seen)}:\n" + "\n".join(wrong[:40])
    counted = Counter(one.status for one in seen)
    print(f"\n{len(cases)} requests to {len(routes)} routes, {walks[0].corpus_size} hostile things: {dict(counted)}")
    # The words came as far as the cluster: some are good names of files, and were taken as such.
    assert counted[201] >= 20
    assert sum(counted[status] for status in BUSY) <= len(seen) // 100
    assert ground.tree_outside() == before
    assert (ground.outside / "secret").read_text() == SECRET
    assert canaries(testbed, ground) == []
    assert not Path("/etc/cron.d/evil-made").exists()
    assert not list(testbed.bob.home.glob("evil-made*"))
    assert httpx.get(testbed.url + "/healthz", timeout=30).status_code == 200


def canaries(testbed: Testbed, ground: Ground) -> list[str]:
    """Files that a command made: where it was told to, or in any directory that a process of ours may have run in."""
    found = [str(path) for path in ground.canary.directory.iterdir()]
    places = {"/", "/tmp", "/root", str(testbed.alice.home), str(testbed.bob.home), str(REPOSITORY), os.getcwd()}
    for name in ("api", "worker"):
        places.add(os.readlink(f"/proc/{testbed.service_pid(name)}/cwd"))
    for place in sorted(places):
        found += [str(path) for path in Path(place).glob(f"canary-{ground.canary.token}-*")]
    command = [
        "find",
        testbed.alice.home,
        testbed.environment["TESTBED_ROOT"],
        "-xdev",
        "-name",
        f"canary-{ground.canary.token}-*",
    ]
    found += subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return found


def test_the_canary_sings_when_a_word_is_run(testbed: Testbed, ground: Ground) -> None:
    assert canaries(testbed, ground) == []
    word = next(word for word in corpus.commands(ground.canary) if word.startswith("$("))
    subprocess.run(["sh", "-c", f"echo {word}"], check=True, capture_output=True)
    assert len(canaries(testbed, ground)) == 1


@pytest.mark.parametrize("number", range(0, len(corpus.WRAPPINGS), 7))
def test_a_file_with_a_commands_name_goes_up_and_down_whole(testbed: Testbed, ground: Ground, number: int) -> None:
    name = corpus.WRAPPINGS[number].format(ground.canary.touch(relative=True))
    if "\0" in name or "/" in name:
        pytest.skip("no name of a file")
    content = secrets.token_bytes(2000)
    assert testbed.upload(testbed.alice, ground.home / name, content)["state"] == "done"
    assert (ground.home / name).read_bytes() == content
    assert testbed.download(testbed.alice, ground.home / name) == content
    assert canaries(testbed, ground) == []


def test_a_directory_that_became_a_link_while_the_data_came_leads_nowhere(testbed: Testbed, ground: Ground) -> None:
    before = ground.tree_outside()
    directory = ground.home / "links" / "was-a-directory"
    directory.mkdir()
    os.chown(directory, testbed.alice.uid, -1)
    begun = testbed.begin_upload(testbed.alice, directory / "made", 5)
    assert begun.status_code == 201, begun.text
    directory.rename(ground.home / "aside")
    directory.symlink_to(ground.outside)
    testbed.complete(begun.json(), testbed.put_parts(begun.json(), b"bytes"))
    ended = testbed.wait(testbed.alice, begun.json()["transferId"])
    assert (ended["state"], ended["code"]) == ("failed", "target_missing_directory")
    assert ground.tree_outside() == before


RAW_REQUESTS = [
    b"GET /filesystem/testbed/../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET //etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET http://127.0.0.1:1/transfers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /transfers?limit=%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"TRACE /transfers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"$(id) / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /transfers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n",
    b"POST /transfers HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n",
    b"POST /transfers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
]


@pytest.mark.parametrize("request_bytes", RAW_REQUESTS, ids=range(len(RAW_REQUESTS)))
def test_a_request_that_no_client_would_send_is_refused(testbed: Testbed, request_bytes: bytes) -> None:
    address = httpx.URL(testbed.url)
    with socket.create_connection((address.host, address.port or 80), timeout=20) as line:
        line.sendall(request_bytes)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    status = int(answer.split(b" ", 2)[1])
    assert 400 <= status < 500, answer[:300]
    assert b"root:x:0:0" not in answer


def test_every_route_of_the_document_is_walked() -> None:
    walk = Walk("/home/x", "/var/tmp/y", Canary(Path("/tmp"), "t"), transfer_id="t", job_id="1", system="testbed")
    cases = list(walk.cases())
    routes = {(method, route) for route, each in read_document()["paths"].items() for method in each if method in METHODS}
    assert {(case.method.lower(), case.route) for case in cases} == routes
    for place in ("path system", "query path", "body path", "body account"):
        given = {case.word for case in cases if case.place == place}
        words = walk.words_of(place.rpartition(" ")[2])
        assert given >= {word for word in (map(repr, words) if place.startswith("body") else words) if word}, place
    places = {case.place for case in cases}
    assert {"path system", "query path", "body path", "body account", "body fileName"} <= places
    let_in = {case.route for case in cases if case.place == "token" and not case.is_refused_token}
    assert let_in == {"/healthz", "/status/liveness/", "/auth/methods", "/accounts", "/accounts/sessions", "/agent/enrol"}
    assert {case.route for case in cases if case.is_refused_token and case.word.startswith("Bearer x")} >= {"/accounts"}
