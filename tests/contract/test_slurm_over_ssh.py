"""Slurm itself, over SSH, through the port; and what only a real login node can show. Needs the testbed."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from tests.contract.scheduler_contract import SchedulerContract, SchedulerUnderTest
from tests.contract.ssh_testbed import directory_of, open_pool, read_testbed, system_settings

from stagecoach.clusters.remote_files import RemoteFiles
from stagecoach.clusters.slurm_over_ssh import SlurmOverSsh
from stagecoach.core.errors import (
    AccountRequired,
    InvalidRequest,
    PermissionRefused,
    SubmissionRefused,
    SubmissionUncertain,
    SystemUnavailable,
)
from stagecoach.ports.scheduler import JobKey, JobPhase, ReportsIncomplete


class TestSlurmOverSsh(SchedulerContract):
    @pytest.fixture
    async def under_test(self) -> AsyncIterator[SchedulerUnderTest]:
        found = read_testbed()
        settings = system_settings(found)
        with directory_of("alice", found["ALICE_HOME"]) as directory:
            async with open_pool(settings) as pool:
                yield SchedulerUnderTest(SlurmOverSsh(settings, pool), RemoteFiles(settings, pool), "alice", directory)

    async def test_a_bad_partition_is_refused_in_slurms_words(self, under_test: SchedulerUnderTest) -> None:
        settings = system_settings(read_testbed(), directives=["--partition=nope"])
        request = await under_test.request("#!/bin/sh\ntrue\n")
        async with open_pool(settings) as pool:
            with pytest.raises(SubmissionRefused, match="Invalid partition name specified") as refused:
                await SlurmOverSsh(settings, pool).submit("alice", request)
        assert "sbatch" not in refused.value.message

    async def test_a_directive_that_sbatch_does_not_know_is_refused(self, under_test: SchedulerUnderTest) -> None:
        settings = system_settings(read_testbed(), directives=["--no-such-option"])
        request = await under_test.request("#!/bin/sh\ntrue\n")
        async with open_pool(settings) as pool:
            with pytest.raises(SubmissionRefused, match="unrecognized option"):
                await SlurmOverSsh(settings, pool).submit("alice", request)

    @pytest.mark.parametrize("account", ["x; touch pwned", "$(id)", "", "a b", "--wrap=id", "a" * 65, "é"])
    async def test_a_hostile_account_is_refused_before_anything_is_sent(
        self, under_test: SchedulerUnderTest, account: str
    ) -> None:
        request = await under_test.request("#!/bin/sh\ntrue\n", account=account)
        with pytest.raises(InvalidRequest) as refused:
            await under_test.scheduler.submit("alice", request)
        assert type(refused.value) is InvalidRequest

    async def test_accounts(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\necho $SLURM_JOB_ACCOUNT\n", held=True, account="no-such-account")
        with pytest.raises(SubmissionRefused, match="account"):
            await under_test.scheduler.submit("alice", request)
        settings = system_settings(read_testbed(), directives=["--account={account}"])
        async with open_pool(settings) as pool:
            scheduler = SlurmOverSsh(settings, pool)
            with pytest.raises(AccountRequired):
                await scheduler.submit("alice", await under_test.request("#!/bin/sh\ntrue\n", held=True))
            request = await under_test.request("#!/bin/sh\ntrue\n", held=True, account="proj")
            job_id = await scheduler.submit("alice", request)
            assert (await under_test.until(job_id, request, JobPhase.HELD)).account == "proj"
            await scheduler.cancel("alice", job_id)

    async def test_the_jobs_environment_is_the_users(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\nenv\n")
        job_id = await under_test.scheduler.submit("alice", request)
        await under_test.until(job_id, request)
        lines = (await under_test.text(request.output_path)).splitlines()
        names = {line.split("=", 1)[0] for line in lines}
        assert {"PATH", "HOME", "USER", "SLURM_JOB_ID"} <= names
        assert not names & {"SSH_CONNECTION", "SSH_CLIENT", "SLURM_GET_USER_ENV"}

    async def test_another_users_job(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\ntrue\n", held=True)
        job_id = await under_test.scheduler.submit("alice", request)
        with pytest.raises(PermissionRefused):
            await under_test.scheduler.cancel("bob", job_id)
        assert await under_test.scheduler.find("bob", request.name) == []
        asked_as_bob = system_settings(read_testbed(), scheduler={"ask_as": "bob"})
        async with open_pool(asked_as_bob) as pool:
            reports = await SlurmOverSsh(asked_as_bob, pool).reports([under_test.key(job_id, request)])
        assert reports[job_id].phase is JobPhase.HELD
        await under_test.scheduler.cancel("alice", job_id)

    async def test_accounting_tells_of_a_job_the_controller_forgot(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\nexit 7\n")
        job_id = await under_test.scheduler.submit("alice", request)
        await under_test.until(job_id, request)
        scheduler = under_test.scheduler
        assert isinstance(scheduler, SlurmOverSsh)
        deadline = time.monotonic() + 20
        while True:
            rows = await scheduler._accounting("alice", user="alice", job_ids=[job_id]) or []
            # Of an earlier life of the controller there may be another job of this number.
            if [(row.phase, row.exit_code) for row in rows if row.name == request.name] == [(JobPhase.FAILED, 7)]:
                break
            assert time.monotonic() < deadline, rows
            await asyncio.sleep(0.5)

    async def test_an_owner_who_cannot_log_in_hides_nobody_elses_jobs(self, under_test: SchedulerUnderTest) -> None:
        request = await under_test.request("#!/bin/sh\ntrue\n", held=True)
        job_id = await under_test.scheduler.submit("alice", request)
        keys = [under_test.key(job_id, request), JobKey("1", "stagecoach-x", "carol")]
        with pytest.raises(ReportsIncomplete) as incomplete:
            await under_test.scheduler.reports(keys)
        assert set(incomplete.value.reports) == {job_id}
        assert incomplete.value.unanswered == {"1"}
        await under_test.scheduler.cancel("alice", job_id)

    async def test_missing_binaries_are_named(self, under_test: SchedulerUnderTest) -> None:
        settings = system_settings(read_testbed(), scheduler={"binaries": "/opt/none"})
        request = await under_test.request("#!/bin/sh\ntrue\n")
        async with open_pool(settings) as pool:
            scheduler = SlurmOverSsh(settings, pool)
            for asked in (scheduler.submit("alice", request), scheduler.find("alice", "stagecoach-x")):
                with pytest.raises(SystemUnavailable, match=r"scheduler\.binaries"):
                    await asked

    @pytest.mark.parametrize("frozen", [False, True])
    async def test_a_controller_that_is_down_or_frozen(self, under_test: SchedulerUnderTest, frozen: bool) -> None:
        """The commands of the testbed, pointed at a port where nobody listens, or somebody who never answers."""
        found = read_testbed()
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            if frozen:
                nobody.listen(64)
            configuration = Path(found["SLURM_CONF"]).read_text(encoding="utf-8")
            configuration = re.sub(r"(?m)^SlurmctldPort=.*$", f"SlurmctldPort={nobody.getsockname()[1]}", configuration)
            configuration = re.sub(r"(?m)^MessageTimeout=.*$", "MessageTimeout=2", configuration)
            top = under_test.directory
            await under_test.files.write_file("alice", f"{top}/slurm.conf", configuration.encode(), 0o644)
            for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
                script = f"#!/bin/sh\nSLURM_CONF='{top}/slurm.conf' exec {name} \"$@\"\n"
                await under_test.files.write_file("alice", f"{top}/{name}", script.encode(), 0o755)
            settings = system_settings(
                found, scheduler={"binaries": top}, ssh={"command_timeout_seconds": 40, "max_sessions_per_user": 8}
            )
            request = await under_test.request("#!/bin/sh\ntrue\n", held=True)
            async with open_pool(settings) as pool:
                scheduler = SlurmOverSsh(settings, pool)
                asked = await asyncio.gather(
                    scheduler.submit("alice", request),
                    scheduler.find("alice", request.name),
                    scheduler.reports([JobKey("1", "stagecoach-x", "alice")]),
                    scheduler.reports([JobKey(str(n), "stagecoach-x", "alice") for n in range(1, 4)]),
                    scheduler.release("alice", "1"),
                    scheduler.cancel("alice", "1"),
                    scheduler.ping("alice"),
                    return_exceptions=True,
                )
        for answer in asked:
            assert isinstance(answer, SystemUnavailable), asked
        assert isinstance(asked[0], SubmissionUncertain) == frozen

    async def test_fifty_commands_of_one_user_at_once(self, under_test: SchedulerUnderTest) -> None:
        settings = system_settings(read_testbed())
        async with open_pool(settings) as pool:
            begun = time.monotonic()
            results = await asyncio.gather(*(pool.run("alice", ["echo", f"it's $HOME {n}"]) for n in range(50)))
            assert time.monotonic() - begun < 20
        assert [(each.exit_status, each.stdout) for each in results] == [(0, f"it's $HOME {n}\n") for n in range(50)]

    async def test_a_limit_above_sshds_own_still_serves_everybody(self, under_test: SchedulerUnderTest) -> None:
        settings = system_settings(read_testbed(), ssh={"max_sessions_per_user": 25})
        async with open_pool(settings) as pool:
            files = RemoteFiles(settings, pool)
            results = await asyncio.gather(
                *(pool.run("alice", ["sh", "-c", "sleep 0.3; echo $1", "sh", str(n)]) for n in range(50)),
                *(files.home("alice") for _ in range(10)),
            )
        assert len(results) == 60

    async def test_a_wrong_host_key_is_not_talked_to(self) -> None:
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
        settings = system_settings(read_testbed(), ssh={"host_keys": [other]})
        async with open_pool(settings) as pool:
            with pytest.raises(SystemUnavailable, match="host key"):
                await pool.run("alice", ["true"])

    async def test_a_user_without_a_key_or_with_anothers(self) -> None:
        found = read_testbed()
        async with open_pool(system_settings(found)) as pool:
            with pytest.raises(PermissionRefused, match="no SSH key"):
                await pool.run("carol", ["true"])
            for name in ("../bob", "root/../alice", "", "Alice", "a b", "alice\n"):
                with pytest.raises(PermissionRefused, match="not a user name"):
                    await pool.run(name, ["true"])
        with_bobs = system_settings(found, ssh={"credentials": {"key_file": found["SSH_KEYS_DIRECTORY"] + "/bob"}})
        async with open_pool(with_bobs) as pool:
            with pytest.raises(PermissionRefused, match="refused the login"):
                await pool.run("alice", ["true"])
            assert (await pool.run("bob", ["id", "-un"])).stdout == "bob\n"
