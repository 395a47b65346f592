"""The files of this machine, through the port."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.contract.file_operations_contract import FileOperationsContract
from tests.contract.files_contract import FilesContract, FilesUnderTest
from tests.contract.hostile_files_contract import HostileFilesContract

from stagecoach.clusters.local_files import LocalFiles
from stagecoach.core.errors import PathRefused


class TestLocalFiles(FilesContract, FileOperationsContract, HostileFilesContract):
    @pytest.fixture
    def under_test(self, tmp_path: Path) -> FilesUnderTest:
        directory = tmp_path / "files"
        directory.mkdir()
        return FilesUnderTest(LocalFiles(), "me", os.path.realpath(directory))

    async def test_a_file_in_the_way_of_a_directory_is_named(self, under_test: FilesUnderTest) -> None:
        path = f"{under_test.directory}/f"
        await under_test.files.write_file(under_test.username, path, b"", 0o600)
        with pytest.raises(PathRefused, match=r"/f' is there and is not a directory\.$"):
            await under_test.files.make_directory(under_test.username, f"{path}/below/it")
