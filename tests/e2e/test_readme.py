"""The README's "By hand" section does what it says, command by command, with nothing but curl."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.testbed import ENVIRONMENT_FILE, REPOSITORY, Testbed

SMALLER = "100M"


def test_the_commands_of_the_by_hand_section_move_a_file_up_and_down(testbed: Testbed, tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = readme.split("## By hand\n")[1].split("\n## ")[0]
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    commands = commands.replace("make testbed-up && . .testbed/env", f". {ENVIRONMENT_FILE}")
    assert "head -c 1G" in commands
    script = "set -euo pipefail\n" + commands.replace("head -c 1G", f"head -c {SMALLER}")
    (testbed.alice.home / "big.bin").unlink(missing_ok=True)
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stderr
    digests = re.findall(r"^([0-9a-f]{64})  ", done.stdout, re.MULTILINE)
    assert len(digests) == 3
    assert len(set(digests)) == 1
    assert re.search(r"^state: done$", done.stdout, re.MULTILINE)
    assert (testbed.alice.home / "big.bin").stat().st_uid == testbed.alice.uid
