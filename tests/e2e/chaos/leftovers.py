"""What still exists of a test's own transfers: rows that are not through, objects, jobs, files. Seen from outside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.chaos.replicas import Replicas, multiparts
from tests.e2e.testbed import Testbed


@dataclass
class Leftovers:
    """Of all that these replicas ever began for alice in ``folder``."""

    testbed: Testbed
    replicas: Replicas
    folder: Path

    def unfinished_rows(self) -> list[tuple[Any, ...]]:
        """Not ended, not cleaned, or to be looked at again."""
        return self.replicas.query(
            "SELECT id, state, code, cleaned, next_check_at FROM transfers WHERE NOT cleaned OR next_check_at IS NOT NULL"
        )

    def found(self) -> list[str]:
        """Everything outside the database, in words."""
        return [*self._in_store(), *self._in_queue(), *self._in_files(), *self._audited()]

    def _in_store(self) -> list[str]:
        bucket, s3 = f"{self.replicas.settings['s3']['bucket_prefix']}{self.testbed.alice.name}", self.testbed.s3
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        objects = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return [*(f"object {key}" for key in objects), *(f"multipart {key}" for key, _ in multiparts(s3, bucket))]

    def _in_queue(self) -> list[str]:
        ids = [row[0] for row in self.replicas.query("SELECT id FROM transfers")]
        lines = self.testbed.slurm("squeue", "-h", "-o", "%i %j %T %r").splitlines()
        return [f"job {line}" for line in lines if any(each in line for each in ids)]

    def _in_files(self) -> list[str]:
        system = self.replicas.settings["systems"][0]
        work = Path(system["work_directory"].replace("{home}", str(self.testbed.alice.home)))
        hidden = [path for path in self.folder.iterdir() if path.name.startswith(".stagecoach-")]
        return [f"file {path}" for path in (*hidden, *(work.iterdir() if work.exists() else ()))]

    def _audited(self) -> list[str]:
        if "audit" not in self.replicas.verb("--help").stdout:
            return []
        answer = self.replicas.verb("audit", "--json")
        said = json.loads(answer.stdout)
        assert said["unseen"] == [], said
        return [f"audit: {finding}" for finding in said["findings"]]
