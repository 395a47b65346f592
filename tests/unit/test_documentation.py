"""The code explains itself: a sentence for every setting, a reason at the top of every file, files of one thought."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from stagecoach.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = sorted((REPOSITORY / "src").rglob("*.py")) + sorted((REPOSITORY / "migrations").rglob("*.py"))
# The mover is shipped to clusters as one file.
MAY_BE_LONG = {"src/stagecoach/mover/stagecoach_mover.py"}
MAX_LINES = 400


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from models(candidate)


@pytest.mark.parametrize("model", sorted(set(models(Settings)), key=lambda model: model.__name__))
def test_every_setting_has_a_sentence(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        sentence = field.description or ""
        assert len(sentence.split()) >= 2, f"{model.__name__}.{name} has no sentence"
        assert sentence.endswith((".", "…")), f"{model.__name__}.{name}: {sentence!r} is no sentence"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_file_opens_with_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{named(path)} has no docstring"
    assert docstring.split("\n\n")[0].rstrip().endswith((".", ":")), f"{named(path)}: its first sentence has no end"


@pytest.mark.parametrize("path", [path for path in FILES if named(path) not in MAY_BE_LONG], ids=named)
def test_no_file_is_too_long_for_one_thought(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{named(path)} has {lines} lines: ask which second thought moved in"


def test_the_changelog_and_the_licence_are_there() -> None:
    for name in ("CHANGELOG.md", "LICENSE", "README.md", "CONTRIBUTING.md"):
        assert (REPOSITORY / name).stat().st_size > 0
