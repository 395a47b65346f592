"""The files of this machine, through the port."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.contract.files_contract import FilesContract, FilesUnderTest

from stagecoach.clusters.local_files import LocalFiles


class TestLocalFiles(FilesContract):
    @pytest.fixture
    def under_test(self, tmp_path: Path) -> FilesUnderTest:
        directory = tmp_path / "files"
        directory.mkdir()
        return FilesUnderTest(LocalFiles(), "me", os.path.realpath(directory))
