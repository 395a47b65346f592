"""Scheduler and receipt decide together: every outcome with every receipt, before and after the time of grace."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.core.transfers import NOW

from stagecoach.core.verdicts import JobOutcome, Judgement, Receipt, Verdict, judge

GRACE, LOST = 15.0, 120.0
OK = Receipt(ok=True, code=None, message="Whole.", size_bytes=1000, bytes_moved=1000, etag=None)
FAILED = Receipt(ok=False, code="no_space", message="The disk is full.", size_bytes=0, bytes_moved=0, etag=None)
INTERRUPTED = Receipt(ok=False, code="interrupted", message="SIGTERM.", size_bytes=0, bytes_moved=0, etag=None)
RECEIPTS = {"none": None, "ok": OK, "failed": FAILED, "interrupted": INTERRUPTED}

WAIT, MOVE, LOOK, HERE = Verdict.WAITING.value, Verdict.MOVING.value, Verdict.LOOK_AGAIN.value, Verdict.ARRIVED.value
# outcome, receipt: before grace, after grace, after the job counts as lost. A word that is no verdict is a failure's code.
TABLE = f"""
unknown        none         {LOOK}   {LOOK}        job_lost
unknown        ok           {HERE}   {HERE}        {HERE}
unknown        failed       {LOOK}   no_space      no_space
unknown        interrupted  {LOOK}   interrupted   interrupted
waiting        none         {WAIT}   {WAIT}        {WAIT}
waiting        ok           {HERE}   {HERE}        {HERE}
waiting        failed       {WAIT}   {WAIT}        {WAIT}
waiting        interrupted  {WAIT}   {WAIT}        {WAIT}
running        none         {MOVE}   {MOVE}        {MOVE}
running        ok           {HERE}   {HERE}        {HERE}
running        failed       {MOVE}   {MOVE}        {MOVE}
running        interrupted  {MOVE}   {MOVE}        {MOVE}
succeeded      none         {LOOK}   receipt_missing  receipt_missing
succeeded      ok           {HERE}   {HERE}        {HERE}
succeeded      failed       no_space no_space      no_space
succeeded      interrupted  {LOOK}   receipt_missing  receipt_missing
failed         none         {LOOK}   job_failed    job_failed
failed         ok           {HERE}   {HERE}        {HERE}
failed         failed       no_space no_space      no_space
failed         interrupted  {LOOK}   interrupted   interrupted
cancelled      none         {LOOK}   job_cancelled job_cancelled
cancelled      ok           {HERE}   {HERE}        {HERE}
cancelled      failed       no_space no_space      no_space
cancelled      interrupted  {LOOK}   job_cancelled job_cancelled
timed_out      none         {LOOK}   job_timed_out job_timed_out
timed_out      ok           {HERE}   {HERE}        {HERE}
timed_out      failed       no_space no_space      no_space
timed_out      interrupted  {LOOK}   job_timed_out job_timed_out
node_failed    none         {LOOK}   node_failed   node_failed
node_failed    ok           {HERE}   {HERE}        {HERE}
node_failed    failed       no_space no_space      no_space
node_failed    interrupted  {LOOK}   node_failed   node_failed
out_of_memory  none         {LOOK}   out_of_memory out_of_memory
out_of_memory  ok           {HERE}   {HERE}        {HERE}
out_of_memory  failed       no_space no_space      no_space
out_of_memory  interrupted  {LOOK}   out_of_memory out_of_memory
preempted      none         {LOOK}   job_preempted job_preempted
preempted      ok           {HERE}   {HERE}        {HERE}
preempted      failed       no_space no_space      no_space
preempted      interrupted  {LOOK}   job_preempted job_preempted
"""
ROWS = [tuple(line.split()) for line in TABLE.strip().splitlines()]


def judged(outcome: str, receipt: str, unclear_seconds: float | None) -> Judgement:
    return judge(
        JobOutcome(outcome),
        RECEIPTS[receipt],
        now=NOW,
        unclear_since=None if unclear_seconds is None else NOW - timedelta(seconds=unclear_seconds),
        receipt_grace_seconds=GRACE,
        lost_after_seconds=LOST,
    )


def test_the_table_holds_every_case() -> None:
    assert {row[:2] for row in ROWS} == {(outcome.value, receipt) for outcome in JobOutcome for receipt in RECEIPTS}


@pytest.mark.parametrize(("outcome", "receipt", "early", "late", "lost"), ROWS)
def test_every_outcome_with_every_receipt(outcome: str, receipt: str, early: str, late: str, lost: str) -> None:
    for unclear, expected in [(None, early), (0.0, early), (14.9, early), (15.0, late), (119.9, late), (120.0, lost)]:
        judgement = judged(outcome, receipt, unclear)
        got = judgement.code if judgement.verdict is Verdict.FAILED else judgement.verdict.value
        assert got == expected, unclear
        if judgement.verdict is Verdict.FAILED:
            assert judgement.reason
        else:
            assert (judgement.code, judgement.reason) == (None, None)


@pytest.mark.parametrize("outcome", [outcome.value for outcome in JobOutcome])
@pytest.mark.parametrize("receipt", ["none", "failed", "interrupted"])
@pytest.mark.parametrize("unclear", [None, 0.0, 15.0, 120.0, 1e9])
def test_nothing_arrives_without_a_receipt_that_says_ok(outcome: str, receipt: str, unclear: float | None) -> None:
    assert judged(outcome, receipt, unclear).verdict is not Verdict.ARRIVED


@pytest.mark.parametrize("outcome", [outcome.value for outcome in JobOutcome])
@pytest.mark.parametrize("unclear", [None, 0.0, 15.0, 120.0, 1e9])
def test_a_good_receipt_is_never_shown_as_failed(outcome: str, unclear: float | None) -> None:
    assert judged(outcome, "ok", unclear).verdict is not Verdict.FAILED


def test_the_movers_own_sentence_is_what_the_user_reads() -> None:
    assert judged("failed", "failed", 0.0).reason == "The disk is full."


def test_a_failed_receipt_without_a_code_has_one_all_the_same() -> None:
    nameless = Receipt(ok=False, code=None, message="", size_bytes=0, bytes_moved=0, etag=None)
    judgement = judge(
        JobOutcome.FAILED, nameless, now=NOW, unclear_since=NOW, receipt_grace_seconds=GRACE, lost_after_seconds=LOST
    )
    assert (judgement.verdict, judgement.code) == (Verdict.FAILED, "job_failed")
