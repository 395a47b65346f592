"""The program ``firecrest``, which comes with pyfirecrest, at each of its words for files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.integration.firecrest.service import FirecrestService, Program


def test_every_word_of_the_program_for_files(service: FirecrestService, top: Path, tmp_path: Path) -> None:
    firecrest, local = Program(service.url, service.system, service.token, tmp_path), tmp_path / "local file"
    content = "".join(f"line {number}\n" for number in range(30))
    local.write_text(content)
    firecrest("mkdir", top / "a/b", "-p")
    firecrest("upload", local, top / "a/b", "its name")
    there = top / "a/b/its name"
    assert there.read_text() == content
    assert "its name" in firecrest("ls", top / "a/b")
    assert str(len(content)) in firecrest("stat", there)
    assert "ASCII text" in firecrest("file", there)
    assert firecrest("head", there, "-n", "2").rstrip("\n") == "line 0\nline 1"
    assert firecrest("head", there, "-n", "-28").rstrip("\n") == "line 0\nline 1"
    assert firecrest("tail", there, "-n", "2").rstrip("\n") == "line 28\nline 29"
    assert firecrest("tail", there, "-n", "+29").rstrip("\n") == "line 28\nline 29"
    assert hashlib.sha256(content.encode()).hexdigest() in firecrest("checksum", there)
    firecrest("chmod", there, "600")
    assert there.stat().st_mode & 0o777 == 0o600
    firecrest("chown", there, "--group", os.getgid())
    firecrest("symlink", there, top / "link")
    assert os.readlink(top / "link") == str(there)
    firecrest("compress", top / "a", top / "a.tar.gz")
    (top / "out").mkdir()
    firecrest("extract", top / "a.tar.gz", top / "out")
    assert (top / "out/a/b/its name").read_text() == content
    firecrest("download", there, tmp_path / "back")
    assert (tmp_path / "back").read_text() == content
    firecrest("rm", top / "a", "--force")
    assert sorted(os.listdir(top)) == ["a.tar.gz", "link", "out"]
    missing = firecrest.run("stat", top / "missing")
    assert missing.returncode != 0
    assert "No such file or directory" in " ".join((missing.stdout + missing.stderr).split())
