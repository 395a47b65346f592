"""The pool against a real SSH server that lives in this process and misbehaves on request."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from stagecoach.clusters import ssh_connections
from stagecoach.clusters.ssh_credentials import Credentials
from stagecoach.clusters.ssh_login import OpenConnection
from stagecoach.clusters.ssh_pool import AnswerLost, SshPool
from stagecoach.core.errors import PermissionRefused, SystemUnavailable
from stagecoach.settings.systems import SshSettings


@dataclass
class Server:
    """What it was asked, and how it is reached."""

    port: int
    host_key: str
    keys: Path
    logins: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    open_connections: set[asyncssh.SSHServerConnection] = field(default_factory=set)
    acceptor: Any = None

    def settings(self, **more: Any) -> SshSettings:
        return SshSettings.model_validate(
            {
                "host": "127.0.0.1",
                "port": self.port,
                "host_keys": [self.host_key],
                "credentials": {"key_file": f"{self.keys}/{{user}}"},
                "connect_timeout_seconds": 2,
                "command_timeout_seconds": 2,
                **more,
            }
        )


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    authority = asyncssh.generate_private_key("ssh-ed25519")
    authority.write_private_key(tmp_path / "authority")
    trusted = []
    for user in ("alice", "bob", "carol"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(tmp_path / user)
        trusted.append(key.export_public_key().decode())
    trusted.append("cert-authority " + authority.export_public_key().decode())
    it = Server(0, host_key.export_public_key().decode().strip(), tmp_path)

    class Connection(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            self.conn = conn
            it.open_connections.add(conn)

        def connection_lost(self, exc: Exception | None) -> None:
            it.open_connections.discard(self.conn)

        def auth_completed(self) -> None:
            it.logins.append(self.conn.get_extra_info("username"))

        def connection_requested(self, *_: object) -> bool:
            return True

    async def command(process: asyncssh.SSHServerProcess[bytes]) -> None:
        words = shlex.split(process.command or "")
        it.commands.append(process.command or "")
        match words[0]:
            case "echo":
                process.stdout.write(" ".join(words[1:]).encode("utf-8", "surrogateescape"))
            case "cat":
                process.stdout.write(await process.stdin.read())
            case "sleep":
                await asyncio.sleep(float(words[1]))
            case "raw":
                process.stdout.write(b"\xff\xfe")
            case "flood":
                for _ in range(64):
                    process.stdout.write(b"x" * 65536)
                    await process.stdout.drain()
            case "drop":
                process.stdout.write(b"half")
                await asyncio.sleep(0.05)
                process.get_extra_info("connection").abort()
                return
            case "killed":
                process.exit_with_signal("KILL")
                return
            case "fail":
                process.stderr.write(b"oops")
                process.exit(3)
                return
        process.exit(0)

    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Connection,
        server_host_keys=[host_key],
        authorized_client_keys=asyncssh.import_authorized_keys("".join(trusted)),
        process_factory=command,
        encoding=None,
        sftp_factory=True,
    )
    it.port, it.acceptor = acceptor.get_port(), acceptor
    yield it
    acceptor.close()
    for connection in list(it.open_connections):
        connection.abort()
    await acceptor.wait_closed()


@pytest.fixture
async def pool(server: Server) -> AsyncIterator[SshPool]:
    it = SshPool("daint", server.settings())
    yield it
    await it.aclose()


async def test_words_arrive_as_they_are(pool: SshPool, server: Server) -> None:
    odd = ["echo", "it's", "$(touch pwned)", "a\nb", "é", "-n", ""]
    result = await pool.run("alice", odd)
    assert (result.exit_status, result.stdout, result.stderr) == (0, " ".join(odd[1:]), "")


async def test_input_arrives_whole_and_ends(pool: SshPool) -> None:
    script = "it's $(touch pwned) é\n\0".encode() * 40_000
    assert (await pool.run("alice", ["cat"], stdin=script)).stdout.encode() == script
    assert (await pool.run("alice", ["cat"], stdin=b"")).stdout == ""
    assert (await pool.run("alice", ["cat"])).stdout == ""


async def test_a_command_that_does_not_read_its_input_ends_as_it_ends(pool: SshPool) -> None:
    assert (await pool.run("alice", ["fail"], stdin=b"x" * 8_000_000)).exit_status == 3
    assert (await pool.run("alice", ["echo", "still", "here"])).stdout == "still here"


async def test_knocking_logs_nobody_in(pool: SshPool, server: Server) -> None:
    assert await pool.knock() == "answers."
    assert server.logins == []
    server.acceptor.close()
    await server.acceptor.wait_closed()
    with pytest.raises(SystemUnavailable, match="does not answer"):
        await pool.knock()


async def test_how_commands_end(pool: SshPool) -> None:
    failed = await pool.run("alice", ["fail"])
    assert (failed.exit_status, failed.stderr) == (3, "oops")
    assert (await pool.run("alice", ["killed"])).exit_status == -9
    assert (await pool.run("alice", ["cat"])).stdout == ""
    assert (await pool.run("alice", ["raw"])).stdout == "\udcff\udcfe"


async def test_a_user_has_one_connection_for_many_commands(pool: SshPool, server: Server) -> None:
    results = await asyncio.gather(*(pool.run("alice", ["echo", str(n)]) for n in range(50)))
    assert [each.stdout for each in results] == [str(n) for n in range(50)]
    await pool.run("bob", ["echo"])
    assert sorted(server.logins) == ["alice", "bob"]


async def test_a_users_slow_commands_do_not_delay_another_user(pool: SshPool) -> None:
    slow = [asyncio.create_task(pool.run("alice", ["sleep", "0.5"])) for _ in range(20)]
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    await pool.run("bob", ["echo"])
    assert time.monotonic() - begun < 0.5
    await asyncio.gather(*slow)


async def test_a_connection_lost_mid_run_is_not_repeated(pool: SshPool, server: Server) -> None:
    with pytest.raises(AnswerLost):
        await pool.run("alice", ["drop"])
    assert server.commands == ["drop"]
    assert (await pool.run("alice", ["echo", "again"])).stdout == "again"


async def test_a_connection_lost_in_between_is_replaced_silently(pool: SshPool, server: Server) -> None:
    await pool.run("alice", ["echo"])
    for connection in list(server.open_connections):
        connection.abort()
    assert (await pool.run("alice", ["echo", "again"])).stdout == "again"
    async with pool.sftp("alice") as sftp:
        await sftp.stat("/")
    for connection in list(server.open_connections):
        connection.abort()
    await asyncio.sleep(0.05)
    async with pool.sftp("alice") as sftp:
        await sftp.stat("/")
    assert server.logins == ["alice"] * 3


async def test_a_command_that_takes_too_long(pool: SshPool) -> None:
    with pytest.raises(AnswerLost, match=r"longer than 0\.2 s"):
        await pool.run("alice", ["sleep", "30"], timeout_seconds=0.2)
    assert (await pool.run("alice", ["echo", "next"])).stdout == "next"


async def test_a_command_that_prints_too_much(pool: SshPool) -> None:
    assert len((await pool.run("alice", ["flood"])).stdout) == 64 * 65536
    with pytest.raises(AnswerLost, match="printed more"):
        await pool.run("alice", ["flood"], max_output_bytes=100_000)


async def test_a_caller_who_goes_away_leaves_the_others_alone(pool: SshPool) -> None:
    calls = [asyncio.create_task(pool.run("alice", ["sleep", "0.2"])) for _ in range(12)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0.15)
    calls[1].cancel()
    calls[8].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(each, asyncio.CancelledError) for each in done) == 3
    assert sum(not isinstance(each, BaseException) for each in done) == 9


@pytest.mark.parametrize("name", ["", "..", ".", "../bob", "a/b", "Alice", "a b", "-x", "1a", "alice\n", "é", "a" * 200])
async def test_an_odd_user_name_is_refused_before_a_path_is_made_of_it(pool: SshPool, server: Server, name: str) -> None:
    with pytest.raises(PermissionRefused, match="not a user name"):
        await pool.run(name, ["echo"])
    with pytest.raises(PermissionRefused, match="not a user name"):
        async with pool.sftp(name):
            pytest.fail("let in")
    assert server.logins == []


async def test_logins_that_fail(pool: SshPool, server: Server) -> None:
    with pytest.raises(PermissionRefused, match="no SSH key"):
        await pool.run("dave", ["echo"])
    (server.keys / "dave").write_text("not a key")
    with pytest.raises(PermissionRefused):
        await pool.run("dave", ["echo"])
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(server.keys / "erin")
    with pytest.raises(PermissionRefused, match="refused the login"):
        await pool.run("erin", ["echo"])
    # One user's bad key is nobody else's trouble.
    assert (await pool.run("alice", ["echo", "fine"])).stdout == "fine"


async def test_a_strangers_host_key_is_refused_and_nothing_is_sent(server: Server) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    pool = SshPool("daint", server.settings(host_keys=[other]))
    with pytest.raises(SystemUnavailable, match="host key"):
        await pool.run("alice", ["echo"])
    assert server.logins == []
    either = SshPool("daint", server.settings(host_keys=[other, server.host_key + " comment"]))
    assert (await either.run("alice", ["echo", "x"])).stdout == "x"
    await either.aclose()


async def test_a_certificate_opens_where_the_key_alone_does_not(server: Server) -> None:
    authority = asyncssh.read_private_key(server.keys / "authority")
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(server.keys / "frank")
    authority.generate_user_certificate(key, "frank", principals=["frank"]).write_certificate(server.keys / "frank-cert.pub")
    alone = SshPool("daint", server.settings())
    with pytest.raises(PermissionRefused):
        await alone.run("frank", ["echo"])
    credentials = {
        "key_file": f"{server.keys}/{{user}}",
        "certificate_file": f"{server.keys}/{{user}}-cert.pub",
    }
    pool = SshPool("daint", server.settings(credentials=credentials))
    assert (await pool.run("frank", ["echo", "x"])).stdout == "x"
    await pool.aclose()


async def test_through_a_gateway(server: Server) -> None:
    gateway = {"host": "127.0.0.1", "port": server.port, "host_keys": [server.host_key]}
    pool = SshPool("daint", server.settings(proxy_jump=gateway))
    assert (await pool.run("alice", ["echo", "x"])).stdout == "x"
    assert server.logins == ["alice", "alice"]
    await pool.aclose()
    deadline = time.monotonic() + 2
    while server.open_connections and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert not server.open_connections
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    pool = SshPool("daint", server.settings(proxy_jump={**gateway, "host_keys": [other]}))
    with pytest.raises(SystemUnavailable, match=r"gateway.*host key"):
        await pool.run("alice", ["echo"])


async def test_a_dead_system_costs_one_timeout(tmp_path: Path) -> None:
    accepted = 0

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await asyncio.sleep(30)

    dead = await asyncio.start_server(silent, "127.0.0.1", 0)
    key = asyncssh.generate_private_key("ssh-ed25519")
    now = 0.0
    settings = SshSettings.model_validate(
        {
            "host": "127.0.0.1",
            "port": dead.sockets[0].getsockname()[1],
            "host_keys": [key.export_public_key().decode().strip()],
            "credentials": {"key_file": str(tmp_path / "key")},
            "connect_timeout_seconds": 0.3,
        }
    )
    key.write_private_key(tmp_path / "key")
    pool = SshPool("daint", settings, clock=lambda: now)
    begun = time.monotonic()
    answers = await asyncio.gather(*(pool.run(f"user{n % 4}", ["echo"]) for n in range(40)), return_exceptions=True)
    assert time.monotonic() - begun < 1.5
    assert all(isinstance(each, SystemUnavailable) and "did not answer" in str(each) for each in answers)
    assert accepted <= 4
    begun = time.monotonic()
    with pytest.raises(SystemUnavailable):
        await pool.run("another", ["echo"])
    assert time.monotonic() - begun < 0.3, "it was not asked"
    before = accepted
    now = 6.0
    await asyncio.gather(*(pool.run(f"user{n}", ["echo"]) for n in range(10)), return_exceptions=True)
    assert accepted == before + 1
    dead.close()


async def test_a_system_that_came_back_is_used_again(server: Server) -> None:
    now = 0.0
    settings = server.settings()
    pool = SshPool("daint", settings.model_copy(update={"port": 1}), clock=lambda: now)
    with pytest.raises(SystemUnavailable, match="connection refused"):
        await pool.run("alice", ["echo"])
    pool._connections._settings = settings  # the system came back
    with pytest.raises(SystemUnavailable, match="connection refused"):
        await pool.run("alice", ["echo"])
    now = 5.1
    assert (await pool.run("alice", ["echo", "x"])).stdout == "x"
    await pool.aclose()


async def test_connections_are_bounded_over_all_users_and_idle_ones_make_room(server: Server) -> None:
    pool = SshPool("daint", server.settings(max_connections=1))
    for user in ("alice", "bob", "carol", "alice"):
        assert (await pool.run(user, ["echo", user])).stdout == user
    assert server.logins == ["alice", "bob", "carol", "alice"]
    slow = asyncio.create_task(pool.run("alice", ["sleep", "0.3"]))
    await asyncio.sleep(0.1)
    assert (await pool.run("bob", ["echo", "x"])).stdout == "x"
    assert (await slow).exit_status == 0
    users = ["alice", "bob", "carol"] * 5
    results = await asyncio.gather(*(pool.run(user, ["echo", user]) for user in users))
    assert [each.stdout for each in results] == users
    assert len(server.open_connections) <= 2
    await pool.aclose()


async def test_an_idle_connection_is_closed(server: Server) -> None:
    pool = SshPool("daint", server.settings(idle_timeout_seconds=0.2))
    await pool.run("alice", ["echo"])
    async with pool.sftp("alice") as sftp:
        await sftp.stat("/")
    assert len(server.open_connections) == 1
    await asyncio.sleep(0.6)
    assert not server.open_connections
    await pool.run("alice", ["echo"])
    assert server.logins == ["alice", "alice"]
    await pool.aclose()
    with pytest.raises(SystemUnavailable, match="shutting down"):
        await pool.run("alice", ["echo"])


async def test_file_sessions_are_shared_in_turn_and_survive_errors(pool: SshPool, tmp_path: Path) -> None:
    first = None
    for _ in range(3):
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            async with pool.sftp("alice") as sftp:
                first = first or sftp
                assert sftp is first
                await sftp.stat(str(tmp_path / "missing"))
    with pytest.raises(AnswerLost, match=r"longer than 0\.1 s"):
        async with pool.sftp("alice", timeout_seconds=0.1):
            await asyncio.sleep(5)
    async with pool.sftp("alice") as sftp:
        assert sftp is not first
        await sftp.stat(str(tmp_path))


@pytest.mark.parametrize("kind", [BrokenPipeError, ConnectionResetError])
async def test_a_file_session_whose_socket_broke_is_cut_off_and_not_used_again(pool: SshPool, kind: type[OSError]) -> None:
    with pytest.raises(AnswerLost):
        async with pool.sftp("alice") as broken:
            raise kind(104, "as the socket says it")
    async with pool.sftp("alice") as other:
        assert other is not broken


async def test_file_sessions_and_commands_share_the_users_turns(server: Server, tmp_path: Path) -> None:
    pool = SshPool("daint", server.settings(max_sessions_per_user=2))
    running = most = 0

    async def one(number: int) -> None:
        nonlocal running, most
        if number % 2:
            async with pool.sftp("alice") as sftp:
                running, most = running + 1, max(most, running + 1)
                await sftp.stat(str(tmp_path))
                running -= 1
        else:
            await pool.run("alice", ["echo"])

    await asyncio.gather(*(one(number) for number in range(20)))
    assert most <= 2
    await pool.aclose()


async def test_sessions_are_bounded_over_all_users_and_waiting_for_one_ends(server: Server) -> None:
    pool = SshPool("daint", server.settings(max_sessions=2, queue_timeout_seconds=0.3))
    for user in ("alice", "bob", "carol"):
        await pool.run(user, ["echo"])
    slow = [asyncio.create_task(pool.run(user, ["sleep", "1"])) for user in ("alice", "bob")]
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    with pytest.raises(SystemUnavailable, match=r"busy with the commands of all users; no turn came within 0\.3 s"):
        await pool.run("carol", ["echo"])
    assert time.monotonic() - begun < 0.8
    await asyncio.gather(*slow)
    assert (await pool.run("carol", ["echo", "x"])).stdout == "x"
    await pool.aclose()


async def test_waiting_behind_ones_own_commands_ends(server: Server) -> None:
    pool = SshPool("daint", server.settings(max_sessions_per_user=1, queue_timeout_seconds=0.3))
    slow = asyncio.create_task(pool.run("alice", ["sleep", "1"]))
    await asyncio.sleep(0.1)
    with pytest.raises(SystemUnavailable, match="busy with earlier commands of alice"):
        await pool.run("alice", ["echo"])
    assert (await slow).exit_status == 0
    await pool.aclose()


async def test_a_user_whose_login_hangs_closes_the_system_to_nobody_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = server.settings(connect_timeout_seconds=0.5)
    real = ssh_connections.open_connection

    async def opened(
        name: str, ssh: SshSettings, credentials: Credentials, username: str, on_lost: Callable[[], None]
    ) -> OpenConnection:
        if username == "alice":
            await asyncio.sleep(0.3)
            raise SystemUnavailable("daint did not answer.")
        return await real(name, ssh, credentials, username, on_lost)

    monkeypatch.setattr(ssh_connections, "open_connection", opened)
    pool = SshPool("daint", settings)
    for user in ("bob", "carol"):
        with pytest.raises(SystemUnavailable, match="did not answer"):
            await pool.run("alice", ["echo"])
        assert (await pool.run(user, ["echo", user])).stdout == user
    await pool.aclose()
