"""What a script's #SBATCH lines ask of sbatch that a request cannot give, found before the script is submitted. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from stagecoach.core.errors import InvalidRequest

# sbatch's options without a value may stand together, as in -HW.
_WAIT = re.compile(r"--wait|-[HQOksvW]*W[HQOksvW]*")
_EXPORT = re.compile(r"--export(=|$)")
# What getopt takes for it.
_TEST_ONLY = "--test-only"
_SHORTEST_TEST_ONLY = len("--te")


def require_servable(script: str, *, has_variables: bool) -> None:
    """Raises InvalidRequest. ``has_variables``: the request gives the job variables."""
    for word in _option_words(script):
        if _WAIT.fullmatch(word):
            raise InvalidRequest("A request does not wait for a job's end: take --wait out of the script, and ask for the job.")
        if len(word) >= _SHORTEST_TEST_ONLY and _TEST_ONLY.startswith(word):
            raise InvalidRequest("With --test-only there would be no job to name: take it out of the script.")
        if has_variables and _EXPORT.match(word):
            raise InvalidRequest(
                "The script's own --export says which variables the job gets: take it out of the script, or give the request no "
                "variables."
            )


def _option_words(script: str) -> Iterator[str]:
    """Of the #SBATCH lines, which sbatch reads up to the first line that is no comment."""
    for line in script.splitlines():
        if line.strip() and not line.startswith("#"):
            return
        if re.match(r"#SBATCH\s", line):
            options = line.removeprefix("#SBATCH")
            try:
                yield from shlex.split(options, comments=True)
            except ValueError:
                yield from options.split()
