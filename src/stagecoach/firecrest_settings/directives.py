"""FirecREST's directives for transfer jobs (lines of a script), as options of sbatch."""

from __future__ import annotations

import re
import shlex

SBATCH = "#SBATCH"


class NoOption(Exception):
    """The line is none that sbatch would take; the words say why."""


def options_of(line: str) -> list[str]:
    """``#SBATCH -p xfer --nodes=1  # comment`` is ``-pxfer`` and ``--nodes=1``.

    Raises:
        NoOption: it is for another scheduler, or has a value with white space.
    """
    text = line.strip()
    if text.startswith("#") and not re.match(rf"{SBATCH}(\s|$)", text):
        raise NoOption("is no #SBATCH line")
    try:
        words = shlex.split(text.removeprefix(SBATCH), comments=True)
    except ValueError as error:
        raise NoOption("has a quotation mark without its partner") from error
    options: list[str] = []
    for word in words:
        if re.search(r"\s|\0", word):
            raise NoOption("has a value with white space, which an option cannot have here")
        if word.startswith("-") and len(word) > 1:
            options.append(word)
        elif not options or "=" in options[-1] or re.fullmatch(r"-[A-Za-z].+", options[-1]):
            raise NoOption("has a word that is no option of sbatch")
        else:
            # The value of the option before it.
            options[-1] += word if re.fullmatch(r"-[A-Za-z]", options[-1]) else f"={word}"
    # FirecREST fills these in with str.format.
    return [option.replace("{{", "{").replace("}}", "}") for option in options]
