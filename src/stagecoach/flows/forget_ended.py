"""Forgets transfers that have been over for longer than the settings keep them, with their stories; nodes' commands too."""

from __future__ import annotations

from datetime import timedelta

from stagecoach.flows.toolbox import Toolbox

ROWS_AT_ONCE = 500


async def forget_ended(tools: Toolbox) -> int:
    """In batches, so that no transaction is long. Returns how many transfers went."""
    days = tools.settings.worker.keep_ended_days
    if not days:
        return 0
    before, forgotten = tools.now() - timedelta(days=days), 0
    while gone := await tools.inventory.forget_ended(before, ROWS_AT_ONCE):
        forgotten += gone
    while await tools.node_commands.forget_ended(before, ROWS_AT_ONCE):
        continue
    return forgotten
