"""Which failures pass, with and without progress, how long the pauses are, and what is kept."""

from __future__ import annotations

import pytest
from tests.unit.core.transfers import a_transfer

from stagecoach.core.names import job_name
from stagecoach.core.transfer import Direction
from stagecoach.core.trying_again import Kept, counts, kept_after, next_attempt, passes, pause_after

# code: passes without progress, with progress; what is kept of an upload, of a download.
TABLE = """
job_preempted             yes yes  all     all
node_failed               yes yes  all     all
job_lost                  yes yes  all     all
interrupted               yes yes  all     all
another_mover             yes yes  all     all
held_job_ended            yes yes  all     all
store_unreachable         yes yes  all     all
ticket_expired            yes yes  all     all
job_timed_out             no  yes  all     all
job_failed                no  yes  all     all
out_of_memory             no  no   all     all
job_cancelled             no  no   all     all
receipt_missing           no  no   all     all
store_refused             no  no   all     all
submission_refused        no  no   all     all
no_space                  no  no   staged  all
permission_denied         no  no   staged  all
target_missing_directory  no  no   staged  all
target_exists             no  no   staged  all
job_ended_early           no  no   staged  all
mover_error               no  no   staged  all
size_mismatch             no  no   nothing nothing
size_refused              no  no   nothing nothing
upload_gone               no  no   nothing nothing
object_missing            no  no   nothing nothing
digest_mismatch           no  no   nothing nothing
archive_unsafe            no  no   nothing nothing
archive_unreadable        no  no   nothing nothing
source_changed            no  no   nothing nothing
source_missing            no  no   nothing nothing
source_special_file       no  no   nothing nothing
"""
ROWS = [tuple(line.split()) for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize(("code", "without", "with_progress", "of_upload", "of_download"), ROWS)
def test_what_follows_from_a_code(code: str, without: str, with_progress: str, of_upload: str, of_download: str) -> None:
    stuck = a_transfer(bytes_moved=400, bytes_at_submission=400)
    moved = a_transfer(bytes_moved=401, bytes_at_submission=400)
    fell_back = a_transfer(bytes_moved=100, bytes_at_submission=400)
    assert [passes(transfer, code) for transfer in (stuck, moved, fell_back)] == [
        without == "yes",
        with_progress == "yes",
        without == "yes",
    ]
    assert kept_after(a_transfer(), code) is Kept(of_upload)
    assert kept_after(a_transfer(Direction.DOWNLOAD), code) is Kept(of_download)


def test_only_a_job_that_found_another_at_work_is_no_try() -> None:
    assert [row[0] for row in ROWS if not counts(row[0])] == ["another_mover"]


def test_pauses_grow_to_an_hour() -> None:
    grown = [10.0, 60.0, 360.0, 2160.0, 3600.0, 3600.0]
    assert [pause_after(a_transfer(resubmissions=n), "node_failed") for n in (0, 1, 2, 3, 4, 1000)] == grown
    assert [pause_after(a_transfer(attempt=n), "another_mover") for n in (1, 2, 3, 4, 5, 1001)] == grown
    assert pause_after(a_transfer(resubmissions=2), "held_job_ended") == 0


def test_the_next_attempt_knows_what_is_done_and_nothing_of_the_job_before() -> None:
    first = a_transfer(
        job_id="7", submission_tried=True, job_state="NODE_FAIL", job_reason="x", job_exit_code=1, job_log="x", bytes_moved=610
    )
    second = next_attempt(first)
    assert (second.attempt, second.job_name) == (2, job_name(first.id, 2))
    assert (second.bytes_moved, second.bytes_at_submission, second.first_job_id) == (610, 610, "7")
    assert (second.job_id, second.submission_tried, second.job_state, second.job_log) == (None, False, None, None)
    third = next_attempt(a_transfer(attempt=2, first_job_id="7", job_id="8"))
    assert (third.attempt, third.first_job_id) == (3, "7")
