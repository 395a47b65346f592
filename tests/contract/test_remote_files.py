"""The files of a real system over SFTP, through the port. Needs the testbed."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import subprocess
from collections.abc import AsyncIterator

import pytest
from tests.contract.file_operations_contract import FileOperationsContract
from tests.contract.files_contract import FilesContract, FilesUnderTest
from tests.contract.hostile_files_contract import HostileFilesContract
from tests.contract.ssh_testbed import directory_of, open_pool, read_testbed, system_settings

from stagecoach.clusters.remote_files import RemoteFiles
from stagecoach.core.errors import FileMissing, NoSpace, PermissionRefused


class TestRemoteFiles(FilesContract, FileOperationsContract, HostileFilesContract):
    @pytest.fixture
    async def under_test(self) -> AsyncIterator[FilesUnderTest]:
        found = read_testbed()
        settings = system_settings(found)
        with directory_of("alice", found["ALICE_HOME"]) as directory:
            async with open_pool(settings) as pool:
                yield FilesUnderTest(RemoteFiles(settings, pool), "alice", directory)

    async def test_home_is_the_users(self, under_test: FilesUnderTest) -> None:
        assert await under_test.files.home("alice") == os.path.realpath(read_testbed()["ALICE_HOME"])

    async def test_what_is_not_permitted(self, under_test: FilesUnderTest) -> None:
        files, top = under_test.files, under_test.directory
        os.mkdir(f"{top}/closed", 0o755)  # root's
        await files.write_file("alice", f"{top}/mine", b"x", 0o600)
        for refused in (
            files.write_file("alice", f"{top}/closed/f", b"", 0o600),
            files.make_directory("alice", f"{top}/closed/d"),
            files.read_file("alice", "/etc/shadow", 10),
            files.status("bob", f"{top}/mine", follow_symlinks=True),
            files.remove_tree("bob", top),
        ):
            with pytest.raises(PermissionRefused):
                await refused
        assert not await files.may("alice", f"{top}/closed", "w")
        assert await files.may("alice", f"{top}/closed", "r")
        assert not await files.may("alice", f"{top}/closed", "rw")
        assert not await files.may("alice", "/etc/shadow", "r")
        assert not await files.may("bob", f"{top}/mine", "r")
        assert not await files.may("alice", f"{top}/missing", "r")

    async def test_files_belong_to_the_user(self, under_test: FilesUnderTest) -> None:
        await under_test.files.write_file("alice", f"{under_test.directory}/f", b"x", 0o644)
        status = await under_test.files.status("alice", f"{under_test.directory}/f", follow_symlinks=False)
        assert status is not None
        assert status.uid == os.stat(under_test.directory).st_uid

    async def test_a_full_disk_is_called_one(self, under_test: FilesUnderTest) -> None:
        top = f"{under_test.directory}/small"
        os.mkdir(top)
        if os.system(f"mount -t tmpfs -o size=64k,mode=0777 tmpfs '{top}' 2>/dev/null"):
            pytest.skip("may not mount a small disk here")
        try:
            with pytest.raises(NoSpace):
                await under_test.files.write_file("alice", f"{top}/f", b"x" * 200_000, 0o600)
            assert os.listdir(top) == []
            free = await under_test.files.free_bytes("alice", f"{top}/f")
            assert free is not None
            assert free <= 64 * 1024
        finally:
            os.system(f"umount '{top}'")

    async def test_a_command_that_nobody_waits_for_any_more_ends_itself(self, under_test: FilesUnderTest) -> None:
        path = f"{under_test.directory}/sparse"
        await under_test.files.write_file("alice", path, b"", 0o600)
        os.truncate(path, 1024**4)

        async def until(is_at_work: bool) -> None:
            async with asyncio.timeout(30):
                while bool(subprocess.run(["pgrep", "-f", path], capture_output=True, check=False).stdout) != is_at_work:
                    await asyncio.sleep(0.1)

        asking = asyncio.create_task(under_test.files.checksum("alice", path, timeout_seconds=4))
        await until(is_at_work=True)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(is_at_work=False)

    async def test_an_unknown_path_is_missing_not_refused(self, under_test: FilesUnderTest) -> None:
        with pytest.raises(FileMissing):
            await under_test.files.real_path("alice", f"{under_test.directory}/a/b/c")

    async def test_a_directory_that_may_not_be_read_is_not_listed(self, under_test: FilesUnderTest) -> None:
        files, top = under_test.files, under_test.directory
        os.mkdir(f"{top}/closed", 0o711)  # root's
        with pytest.raises(PermissionRefused):
            await files.list_directory("alice", f"{top}/closed", limit=9, follow_symlinks=False)
        os.mkdir(f"{top}/shut", 0o700)
        os.symlink(f"{top}/shut/x", f"{top}/link")
        listing = await files.list_directory("alice", top, limit=9, follow_symlinks=True)
        assert {entry.name: entry.followed for entry in listing.entries}["link"] is None

    async def test_accounts_have_the_names_of_the_system(self, under_test: FilesUnderTest) -> None:
        account = pwd.getpwnam("alice")
        names = await under_test.files.account_names("alice", [account.pw_uid], [account.pw_gid])
        assert names.users == {account.pw_uid: "alice"}
        assert names.groups == {account.pw_gid: grp.getgrgid(account.pw_gid).gr_name}
