"""An audit as lines for people and as a document for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stagecoach.core.audit import Finding
from stagecoach.flows.audit import Audit

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def as_document(report: Audit) -> dict[str, Any]:
    """``findings``, ``fixed``: objects with the fields of a finding; ``unseen``, ``foreign``: ``place`` and ``why``."""
    return {
        "findings": [_object(finding) for finding in report.findings],
        "unseen": [{"place": place, "why": why} for place, why in report.unseen],
        "foreign": [{"place": place, "why": why} for place, why in report.foreign],
        "fixed": [_object(finding) for finding in report.fixed],
    }


def as_lines(report: Audit) -> Iterator[str]:
    """One line each, and one that counts."""
    yield from (f"FIXED   {_line(finding)}" for finding in report.fixed)
    yield from (f"FOUND   {_line(finding)}" for finding in report.findings)
    yield from (f"UNSEEN  {_printable(place)}: {_printable(why)}" for place, why in report.unseen)
    yield from (f"FOREIGN {_printable(place)}: {_printable(why)}" for place, why in report.foreign)
    counts = {"fixed": report.fixed, "found": report.findings, "could not be looked at": report.unseen}
    yield ", ".join(f"{len(things)} {what}" for what, things in counts.items()) + "."


def _object(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind.value,
        "place": finding.place,
        "name": finding.name.encode("utf-8", "backslashreplace").decode(),
        "transfer_id": finding.transfer_id,
        "user": finding.user,
        "age_seconds": None if finding.age_seconds is None else round(finding.age_seconds, 1),
        "why": finding.why,
        "fixable": finding.fixable,
    }


def _line(finding: Finding) -> str:
    whose = f" of {finding.user}" if finding.user else ""
    which = f", transfer {finding.transfer_id}{whose}" if finding.transfer_id else whose
    age = "" if finding.age_seconds is None else f", {_age(finding.age_seconds)} old"
    what = finding.kind.value.replace("_", " ")
    return f"{what} {_printable(finding.name)} in {_printable(finding.place)}{which}{age}: {_printable(finding.why)}"


def _age(seconds: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1.0, "s"))
    return f"{seconds / size:.0f} {unit}"


def _printable(text: str) -> str:
    """Names of a user's files may hold anything, and the line is read on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
