"""kill -9 of everything, at every arrow of an upload, a download and a cancellation.

For each victim some transfers are stopped at gates, each before or after another outside action; then the victim is
killed, once for all of them. What waited before its action goes on while the victim is dead, what waited after it when
it is back. Every transfer ends ``done`` with equal bytes, or not and with the old target whole; nothing of any is left.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from tests.e2e.chaos.conftest import Chaos
from tests.e2e.chaos.gates import Phase, Point
from tests.e2e.chaos.leftovers import Leftovers
from tests.e2e.chaos.tally import Tally
from tests.e2e.testbed import wait_until

CREATE = Point("service", "create multipart")
TICKET = Point("service", "write ticket")
SUBMIT = Point("command", "sbatch")
COMPLETE = Point("service", "complete multipart")
LOOK = Point("service", "look at object", late=True)
FRESH_TICKET = Point("service", "write ticket", late=True)
RELEASE = Point("command", "scontrol release")
JOB_BEGINS = Point("mover", "read ticket")
RANGE = Point("mover", "get range", nth=2)
PART = Point("mover", "put part", nth=2)
JOB_COMPLETES = Point("mover", "complete multipart")
RECEIPT = Point("mover", "write receipt")
SEEN = Point("service", "read receipt")
DELETE = Point("service", "delete object", late=True)
LIST = Point("service", "list multiparts", late=True)
DELETE_CANCELLED = Point("service", "delete object")
CANCEL_JOB = Point("command", "scancel")
AT_REST = None

Plan = tuple[str, Point | None, Sequence[Phase]]
BOTH: tuple[Phase, ...] = ("before", "after")
BEFORE: tuple[Phase, ...] = ("before",)
AFTER: tuple[Phase, ...] = ("after",)

# Those victims first after which a clean-up waits longest, and of each those transfers first that take longest to come
# to their gates. The nodes run eight jobs at once, so no more than seven
# transfers of a batch may stop in their movers.
KILLS: dict[str, list[Plan]] = {
    "postgresql": [
        ("upload", DELETE, BOTH),
        ("download", DELETE, AFTER),
        ("upload", SEEN, BOTH),
        ("download", SEEN, AFTER),
        ("upload", RANGE, AFTER),
        ("upload", RELEASE, BOTH),
        ("upload", LOOK, BOTH),
        ("finish", COMPLETE, AFTER),
        ("cancel", CANCEL_JOB, BOTH),
        ("upload", SUBMIT, BOTH),
        ("download", SUBMIT, AFTER),
        ("upload", CREATE, BOTH),
    ],
    "api": [
        ("upload", RANGE, AFTER),
        ("finish", COMPLETE, BOTH),
        ("cancel", CANCEL_JOB, BOTH),
        ("cancel", DELETE_CANCELLED, BOTH),
        ("upload", AT_REST, BEFORE),
        ("upload", SUBMIT, BOTH),
        ("download", SUBMIT, BOTH),
        ("upload", TICKET, BOTH),
        ("upload", CREATE, BOTH),
        ("download", CREATE, AFTER),
    ],
    "store": [
        ("upload", DELETE, BOTH),
        ("upload", SEEN, BOTH),
        ("upload", FRESH_TICKET, BOTH),
        ("upload", LOOK, BOTH),
        ("finish", COMPLETE, BOTH),
        ("upload", AT_REST, BEFORE),
        ("upload", TICKET, BOTH),
        ("upload", CREATE, BOTH),
    ],
    "store under the movers": [
        ("download", AT_REST, BEFORE),
        ("upload", RECEIPT, BEFORE),
        ("upload", RANGE, BOTH),
        ("download", PART, BOTH),
        ("download", JOB_COMPLETES, BOTH),
    ],
    "sshd": [
        ("download", PART, AFTER),
        ("upload", RELEASE, BOTH),
        ("upload", SEEN, AFTER),
        ("cancel", CANCEL_JOB, BOTH),
        ("download", SUBMIT, BOTH),
        ("upload", SUBMIT, BOTH),
        ("upload", TICKET, AFTER),
    ],
    "ssh session": [
        ("upload", RANGE, AFTER),
        ("upload", RELEASE, BOTH),
        ("cancel", CANCEL_JOB, BOTH),
        ("upload", AT_REST, BEFORE),
        ("download", SUBMIT, BOTH),
        ("upload", SUBMIT, BOTH),
    ],
    "slurmctld": [
        ("upload", SEEN, BEFORE),
        ("upload", RANGE, AFTER),
        ("download", PART, AFTER),
        ("upload", RECEIPT, AFTER),
        ("upload", RELEASE, BOTH),
        ("upload", AT_REST, BEFORE),
        ("cancel", CANCEL_JOB, BOTH),
        ("download", SUBMIT, BOTH),
        ("upload", SUBMIT, BOTH),
    ],
    "slurmd": [
        ("upload", RECEIPT, BOTH),
        ("download", JOB_COMPLETES, BOTH),
        ("upload", RANGE, AFTER),
        ("download", PART, BEFORE),
        ("upload", JOB_BEGINS, AFTER),
    ],
    "worker": [
        ("upload", DELETE, BOTH),
        ("download", DELETE, BOTH),
        ("upload", LIST, BOTH),
        ("upload", SEEN, BOTH),
        ("download", SEEN, BOTH),
        ("upload", RANGE, AFTER),
        ("download", PART, AFTER),
        ("upload", RELEASE, BOTH),
        ("upload", FRESH_TICKET, BOTH),
        ("upload", LOOK, BOTH),
    ],
    "mover": [
        ("upload", RECEIPT, BOTH),
        ("download", JOB_COMPLETES, BOTH),
        ("upload", RANGE, AFTER),
        ("download", PART, BEFORE),
        ("upload", JOB_BEGINS, AFTER),
    ],
}
FAULTS = sum(len(phases) for plans in KILLS.values() for _, _, phases in plans)


@pytest.mark.usefixtures("put_right")
@pytest.mark.parametrize("victim", KILLS)
def test_every_transfer_ends_well_when_it_is_killed(victim: str, chaos: Chaos, tally: Tally) -> None:
    begun = time.monotonic()
    kill, bring_back = chaos.victims.by_name[victim]
    batch = chaos.batch(victim)
    for plan, point, phases in KILLS[victim]:
        for phase in phases:
            batch.start(plan, point, phase)
    batch.wait_until_all_are_there()
    parked = time.monotonic()
    assert kill() > 0
    batch.open("before")
    bring_back()
    batch.open("after")
    back = time.monotonic()
    batch.wait_until_all_have_ended()
    for trip in batch.trips:
        tally.add(victim, trip)
    times = (
        f"{parked - begun:.1f} s to come there, {back - parked:.1f} s dead, {time.monotonic() - back:.1f} s until all had ended"
    )
    tally.notes.append(f"{victim}: {times}")
    for trip in batch.trips:
        trip.check()


def test_nothing_is_left_after_all_of_it(chaos: Chaos, tally: Tally) -> None:
    """The last of this file: a job may come late for two minutes after its submission's answer was lost."""
    if len(tally.trips) < FAULTS:
        pytest.skip("only after all kills")
    assert len(tally.trips) >= 60
    leftovers = Leftovers(chaos.testbed, chaos.replicas, chaos.folder)
    wait_until(lambda: not leftovers.unfinished_rows(), 240, "all rows are ended and cleaned", pause=1)
    for trip in tally.trips:
        trip.check()  # what was done stays done, and what failed does not come late
    assert leftovers.found() == []
