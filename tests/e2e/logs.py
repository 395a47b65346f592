"""What a whole run of the end-to-end tests wrote into logs, looked through for what must not be in one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|DATABASE_URL")
# Of our own processes only: what others write about our requests is theirs.
OURS = "stagecoach-*.log"
FORMS = re.compile(
    rb"(?i)x-amz-signature=(?!\[hidden\])|awsaccesskeyid=(?!\[hidden\])|\bsignature=(?!\[hidden\])"
    rb"|\beyJ[\w-]{6,}\.[\w-]{6,}|bearer [\w.-]{20,}|PRIVATE KEY-----|whsec_[A-Za-z0-9+/=]{16,}"
)


class Logs:
    """The logs of a directory from here on; what stood in them before is not of this run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._begins = {path: path.stat().st_size for path in directory.glob("*.log")}

    def leaks(self, environment: Mapping[str, str]) -> list[str]:
        """Each secret of the environment in any log, and each thing of a secret's form in ours: file and what it is."""
        secrets = {name: value for name, value in environment.items() if SECRET_NAMES.search(name) and len(value) >= 8}
        found = []
        for path, lines in self._written("*.log"):
            found += [f"{path.name} holds {name}" for name, value in secrets.items() if value.encode() in lines]
        for path, lines in self._written(OURS):
            found += [f"{path.name} holds {match[0].decode(errors='replace')}" for match in FORMS.finditer(lines)]
        return sorted(set(found))

    def _written(self, pattern: str) -> Iterator[tuple[Path, bytes]]:
        for path in sorted(self._directory.glob(pattern)):
            begins = self._begins.get(path, 0)
            if path.stat().st_size < begins:
                begins = 0  # it was begun anew
            with path.open("rb") as file:
                file.seek(begins)
                yield path, file.read()
