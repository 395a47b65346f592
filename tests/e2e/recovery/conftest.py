"""What goes on after a job, a node or Slurm's daemons failed: on the testbed that has nodes, to run beside the others."""

from __future__ import annotations

from tests.e2e.nodes.conftest import testbed

__all__ = ["testbed"]
