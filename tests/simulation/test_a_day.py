"""A day of a busy centre passes within the bounds: few questions, flat memory, nothing lost and nothing done twice.

``STAGECOACH_DAY_TRANSFERS`` and ``STAGECOACH_DAY_HOURS`` make it as full and long as one likes;
``python -m tests.simulation.day`` prints the same figures.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.simulation.day import a_day

TRANSFERS = int(os.environ.get("STAGECOACH_DAY_TRANSFERS", "150"))
HOURS = float(os.environ.get("STAGECOACH_DAY_HOURS", "5"))


@pytest.mark.timeout(1800)
async def test_all_of_a_day_s_transfers_end_within_the_bounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = await a_day(TRANSFERS, 3, HOURS, tmp_path)
    with capsys.disabled():
        print("\n" + figures.text())
    assert sum(figures.ends.values()) == TRANSFERS
    assert (figures.not_ended, figures.left) == (0, [])
    assert (figures.done_twice, figures.submitted_twice) == (0, 0)
    assert set(figures.ends) <= {"done", "failed", "cancelled", "expired"}
    assert figures.ends["done"] > 0.5 * TRANSFERS
    assert figures.asks.most_in_a_minute <= 12
    # The first hours make what is made once: compiled statements, caches, pools.
    assert figures.memory_growth() < 1.3
