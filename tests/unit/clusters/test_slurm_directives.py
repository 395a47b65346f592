"""What a script asks of sbatch that a request cannot give."""

from __future__ import annotations

import pytest

from stagecoach.clusters.slurm_directives import require_servable
from stagecoach.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--wait", "does not wait"),
        ("-W", "does not wait"),
        ("-n 2 -HW  # and more", "does not wait"),
        ("--test-only", "no job to name"),
        ("--test", "no job to name"),
        ("--export=NONE", "own --export"),
        ("--export FOO=bar,PATH", "own --export"),
        ("--job-name=\"it's open --export=ALL", "own --export"),
    ],
)
def test_what_a_request_cannot_give_is_named(line: str, words: str) -> None:
    script = f"#!/bin/sh\n# a comment\n\n#SBATCH {line}\ntrue\n"
    with pytest.raises(InvalidRequest, match=words):
        require_servable(script, has_variables=True)


@pytest.mark.parametrize(
    "line",
    ["--wait-all-nodes=1", "--time=1", "--comment='do not --wait'", "-n 2 # --wait", "--export-file=x", "-J W", "--t", "-w n1"],
)
def test_other_options_are_slurms_own_matter(line: str) -> None:
    require_servable(f"#!/bin/sh\n#SBATCH {line}\n", has_variables=True)


def test_what_stands_behind_the_first_command_or_is_no_directive_is_the_scripts() -> None:
    require_servable("#!/bin/sh\n# SBATCH --wait\n#SBATCHES --wait\ntrue\n#SBATCH --wait\n", has_variables=True)


def test_a_scripts_own_export_is_fine_without_variables_of_the_requests() -> None:
    require_servable("#!/bin/sh\n#SBATCH --export=NONE\n", has_variables=False)
