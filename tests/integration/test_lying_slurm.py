"""Whole transfers through each of Slurm's lies: real SSH, the real plug and worker, and commands that say what a test wants.

Whatever Slurm says, a transfer is never done without its file, never failed while its work goes on, never has two jobs
for one attempt, and never touches somebody else's job. Needs the testbed's sshd; store, database and clock are a test's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.lying_slurm.cluster import FIRST_ID
from tests.fakes.lying_slurm.stage import CONTENT, OLD, Stage, open_stage
from tests.fakes.world import ALICE, migrated_database

from stagecoach.core.errors import SubmissionUncertain
from stagecoach.core.transfer import State
from stagecoach.flows import cancel_transfer as cancelling
from stagecoach.flows.cancel_transfer import cancel_transfer


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "template.db"
    asyncio.run(migrated_database(path))
    return path


@pytest.fixture(autouse=True)
def worker_alone_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request waits for a lie to end."""
    monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0)


@pytest.fixture
async def stage(tmp_path: Path, empty_database: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path, empty_database, getattr(request, "param", {})) as opened:
        yield opened


class TestTheQueue:
    async def test_a_filter_that_is_ignored(self, stage: Stage) -> None:
        """``squeue --json -j`` of 22.05 answers with all users' jobs in all states; the plug looks itself."""
        stage.slurm.lie(squeue_ignores_its_options=True)
        finished = stage.slurm.somebodys_job("bob")
        stage.slurm.set_job(finished, state="COMPLETED")
        others = [stage.slurm.somebodys_job("bob", held=True), stage.slurm.somebodys_job("alice", held=True)]
        transfer = await stage.run()
        stage.slurm.finish(transfer.job_id or "")
        await stage.delivered()
        assert [stage.slurm.jobs()[job_id]["reason"] for job_id in others] == ["JobHeldUser"] * 2

    @pytest.mark.parametrize("silence", ["silent", "silent but for stderr"])
    async def test_an_empty_answer_of_a_dead_controller_is_no_lost_job(self, stage: Stage, silence: str) -> None:
        transfer = await stage.queue()
        stage.slurm.lie(controller=silence)
        await stage.world.work(30, seconds=30)
        waiting = await stage.is_now(State.QUEUED)
        assert "does not answer" in (waiting.reason or "") or "cannot tell" in (waiting.reason or "")
        stage.slurm.lie()
        stage.slurm.start(transfer.job_id or "")
        stage.slurm.finish(transfer.job_id or "")
        await stage.until(State.DONE, seconds=100)
        assert len(stage.slurm.calls("sbatch")) == 1

    @pytest.mark.parametrize("silence", ["silent", "silent but for stderr"])
    async def test_an_empty_answer_of_a_dead_controller_frees_nobody_from_cancelling(self, stage: Stage, silence: str) -> None:
        begun = await stage.begin()
        stage.slurm.lie(controller=silence)
        assert (await cancel_transfer(stage.world.tools, ALICE, begun.transfer.id)).state is State.CANCELLING
        await stage.world.work(5, seconds=30)
        await stage.is_now(State.CANCELLING)
        stage.slurm.lie()
        ended = await stage.until(State.CANCELLED, seconds=60)
        await stage.is_clean(ended)
        assert stage.slurm.jobs()[begun.transfer.job_id or ""]["state"] == "CANCELLED"

    @pytest.mark.parametrize("silence", ["silent", "silent but for stderr"])
    async def test_an_empty_answer_of_a_dead_controller_is_no_reason_for_a_second_job(self, stage: Stage, silence: str) -> None:
        begun = await stage.begin()
        stage.slurm.lie(controller=silence)
        assert stage.world.put_by_client(begun, CONTENT)
        await stage.world.work(10, seconds=30)
        await stage.is_now(State.STAGED)
        stage.slurm.lie()
        await stage.until(State.QUEUED, seconds=60)
        stage.slurm.start_pending()
        stage.slurm.finish(begun.transfer.job_id or "")
        await stage.delivered()
        assert len(stage.slurm.calls("sbatch")) == 1

    @pytest.mark.parametrize("stage", [{"ask_as": "alice"}], indirect=True)
    async def test_with_private_data_an_asker_sees_nobody_elses_job(self, stage: Stage) -> None:
        """What one who may ask for all does not see is asked of its owner before it is called lost."""
        stage.slurm.lie(others_are_private=True)
        hidden = stage.slurm.somebodys_job("bob", name="stagecoach-x")
        assert await stage.world.scheduler.find("alice", "stagecoach-x") == []
        transfer = await stage.run()
        stage.slurm.finish(transfer.job_id or "")
        await stage.delivered()
        assert stage.slurm.jobs()[hidden]["state"] == "PENDING"

    async def test_a_job_on_its_way_out_still_holds_its_files(self, stage: Stage) -> None:
        transfer = await stage.run()
        stage.slurm.lie(jobs_take_their_time_to_end=True)
        await cancel_transfer(stage.world.tools, ALICE, transfer.id)
        await stage.world.work(3, seconds=5)
        await stage.is_now(State.CANCELLING)
        assert os.path.exists(transfer.job_directory or "")
        stage.slurm.set_job(transfer.job_id or "", state="CANCELLED")
        ended = await stage.until(State.CANCELLED)
        await stage.is_clean(ended)
        assert stage.target.read_bytes() == OLD

    @pytest.mark.parametrize("reason", ["PartitionDown", "PartitionTimeLimit", "ReqNodeNotAvail", "AssocGrpCPUMinutesLimit"])
    async def test_a_job_that_waits_says_why_and_is_waited_for(self, stage: Stage, reason: str) -> None:
        transfer = await stage.queue()
        stage.slurm.set_job(transfer.job_id or "", reason=reason)
        await stage.world.work(20, seconds=60)
        waiting = await stage.is_now(State.QUEUED)
        assert (waiting.job_state, waiting.job_reason) == ("PENDING", reason)
        assert f"({reason})" in (waiting.reason or "")

    async def test_a_job_that_could_not_be_launched_and_is_held_again_is_let_go(self, stage: Stage) -> None:
        transfer = await stage.queue()
        stage.slurm.set_job(transfer.job_id or "", reason="launch failed requeued held", restarts=1)
        await stage.world.work(3)
        assert stage.slurm.jobs()[transfer.job_id or ""]["reason"] == "Priority"
        stage.slurm.start(transfer.job_id or "")
        stage.slurm.finish(transfer.job_id or "")
        await stage.delivered()

    async def test_munge_that_is_away_changes_nothing(self, stage: Stage) -> None:
        transfer = await stage.run()
        stage.slurm.lie(munge=True)
        await stage.world.work(20, seconds=30)
        waiting = await stage.is_now(State.MOVING)
        assert "unge" in (waiting.reason or "")
        stage.slurm.lie()
        stage.slurm.finish(transfer.job_id or "")
        await stage.until(State.DONE, seconds=100)


class TestAccounting:
    @pytest.mark.parametrize("lag", ["empty", "placeholder"])
    async def test_that_lags_behind_a_job_which_the_controller_forgot(self, stage: Stage, lag: str) -> None:
        transfer = await stage.run()
        stage.slurm.lie(sacct=lag)
        stage.slurm.set_job(transfer.job_id or "", state="FAILED", exit_="7:0")
        stage.slurm.forget(transfer.job_id or "")
        await stage.world.work(4, seconds=5)
        await stage.is_now(State.MOVING)
        stage.slurm.lie()
        failed = await stage.failed("job_failed")
        assert failed.job_exit_code == 7

    @pytest.mark.parametrize("lag", ["empty", "placeholder"])
    async def test_that_lags_behind_a_job_which_did_its_work(self, stage: Stage, lag: str) -> None:
        transfer = await stage.run()
        stage.slurm.lie(sacct=lag)
        stage.slurm.finish(transfer.job_id or "")
        stage.slurm.forget(transfer.job_id or "")
        await stage.delivered()

    @pytest.mark.parametrize(
        ("state", "exit_", "code", "exit_code"),
        [
            # 22.05's sacct --json says 0 of every failure; a 0 is believed of a completed job only.
            ("FAILED", "0:0", "job_failed", None),
            # `exit 137` is printed as 9:0.
            ("FAILED", "9:0", "job_failed", 9),
            ("FAILED", "", "job_failed", None),
            ("CANCELLED by 1001", "0:15", "job_cancelled", None),
            ("COMPLETED", "0:0", "receipt_missing", 0),
        ],
    )
    async def test_an_end_in_strange_words_without_a_receipt_fails(
        self, stage: Stage, state: str, exit_: str, code: str, exit_code: int | None
    ) -> None:
        transfer = await stage.run()
        stage.slurm.set_job(transfer.job_id or "", state=state, exit_=exit_)
        stage.slurm.forget(transfer.job_id or "")
        failed = await stage.failed(code)
        assert failed.job_exit_code == exit_code

    @pytest.mark.parametrize("state", ["FAILED", "CANCELLED by 1001", "NODE_FAIL"])
    async def test_a_bad_end_of_a_job_whose_file_is_whole_is_not_believed(self, stage: Stage, state: str) -> None:
        transfer = await stage.run()
        stage.slurm.finish(transfer.job_id or "")
        stage.slurm.set_job(transfer.job_id or "", state=state, exit_="0:0")
        stage.slurm.forget(transfer.job_id or "")
        await stage.delivered()

    async def test_a_requeued_job_has_several_rows_and_the_last_counts(self, stage: Stage) -> None:
        transfer = await stage.run()
        job_id = transfer.job_id or ""
        stage.slurm.requeue(job_id)
        await stage.world.work()
        waiting = await stage.is_now(State.QUEUED)
        assert (waiting.job_reason, waiting.restarts) == ("BeginTime", 1)
        stage.slurm.start(job_id)
        stage.slurm.finish(job_id)
        stage.slurm.forget(job_id)
        await stage.delivered()
        assert len(stage.slurm.calls("sbatch")) == 1

    async def test_that_is_dead_during_the_whole_job_is_not_needed(self, stage: Stage) -> None:
        stage.slurm.lie(sacct="database down")
        transfer = await stage.run()
        stage.slurm.finish(transfer.job_id or "")
        await stage.delivered()

    async def test_that_is_dead_when_the_controller_has_forgotten_is_waited_for(self, stage: Stage) -> None:
        transfer = await stage.run()
        stage.slurm.lie(sacct="database down")
        stage.slurm.finish(transfer.job_id or "")
        stage.slurm.forget(transfer.job_id or "")
        await stage.world.work(20, seconds=60)
        waiting = await stage.is_now(State.MOVING)
        assert "Connection refused" in (waiting.reason or "")
        stage.slurm.lie()
        await stage.until(State.DONE, seconds=300)


class TestNumbersThatAreUsedAgain:
    async def test_a_held_job_whose_number_is_somebody_elses_now(self, stage: Stage) -> None:
        """slurmctld lost its memory: the user's own simulation, held by the user, has got our job's number."""
        begun = await stage.begin()
        assert begun.transfer.job_id == str(FIRST_ID)
        stage.slurm.lose_memory()
        other = stage.slurm.somebodys_job("alice", held=True)
        assert other == begun.transfer.job_id
        assert stage.world.put_by_client(begun, CONTENT)
        transfer = await stage.until(State.QUEUED, seconds=1)
        assert transfer.job_id not in {None, other}
        assert len(stage.slurm.calls("sbatch")) == 2
        stage.slurm.start(transfer.job_id or "")
        stage.slurm.finish(transfer.job_id or "")
        await stage.delivered()
        assert stage.slurm.jobs()[other]["reason"] == "JobHeldUser"

    @pytest.mark.parametrize("user", ["alice", "bob"])
    async def test_a_cancel_does_not_reach_the_job_that_has_the_number_now(self, stage: Stage, user: str) -> None:
        transfer = await stage.run()
        stage.slurm.lose_memory()
        other = stage.slurm.somebodys_job(user)
        assert other == transfer.job_id
        await cancel_transfer(stage.world.tools, ALICE, transfer.id)
        await stage.is_clean(await stage.until(State.CANCELLED))
        assert stage.slurm.jobs()[other]["state"] == "PENDING"
        assert stage.slurm.calls("scancel") == []

    @pytest.mark.parametrize("others_end", ["COMPLETED", "FAILED", "RUNNING"])
    async def test_anothers_end_is_not_ours_and_a_script_that_runs_on_is_waited_for(self, stage: Stage, others_end: str) -> None:
        """The accounting row of ours stays RUNNING for ever; the script finishes long after ``job_lost_seconds``."""
        transfer = await stage.run()
        stage.slurm.lose_memory()
        other = stage.slurm.somebodys_job("alice")
        assert other == transfer.job_id
        stage.slurm.set_job(other, state=others_end)
        for step in range(1, 21):
            stage.slurm.progress(transfer.job_directory or "", step * 50)
            await stage.world.work(seconds=30)
            assert (await stage.is_now(State.MOVING)).bytes_moved == step * 50
        stage.slurm.work(transfer.job_directory or "")
        await stage.delivered()
        assert stage.slurm.jobs()[other]["state"] == others_end
        assert len(stage.slurm.calls("sbatch")) == 1

    async def test_a_job_that_is_forgotten_and_does_nothing_is_lost_and_another_goes_on(self, stage: Stage) -> None:
        transfer = await stage.run()
        stage.slurm.lose_memory()
        stage.slurm.set_job(stage.slurm.somebodys_job("alice"), state="COMPLETED")
        await stage.world.work(8, seconds=10)
        assert await stage.is_now(State.MOVING) is not None
        again = await stage.until(State.QUEUED)
        assert (again.attempt, again.job_id) == (2, None)
        await stage.world.work(3, seconds=10)
        again = await stage.is_now(State.QUEUED)
        assert again.job_id not in {None, transfer.job_id}
        stage.slurm.start(again.job_id or "")
        stage.slurm.finish(again.job_id or "")
        await stage.delivered()


class TestAFrozenController:
    async def test_a_job_made_after_its_request_was_refused_does_not_stay(self, stage: Stage) -> None:
        stage.slurm.lie(controller="frozen")
        with pytest.raises(SubmissionUncertain):
            await stage.begin()
        assert stage.slurm.jobs() == {}
        stage.slurm.thaw()
        assert len(stage.slurm.open_jobs()) == 1
        await stage.world.work(30, seconds=10)
        ended = await stage.is_now(State.FAILED)
        await stage.is_clean(ended)
        assert len(stage.slurm.calls("sbatch")) == 1

    async def test_a_job_whose_answer_was_lost_is_found_by_its_name(self, stage: Stage) -> None:
        stage.slurm.lie(sbatch="loses the answer")
        begun = await stage.begin()
        assert list(stage.slurm.jobs()) == [begun.transfer.job_id]

    @pytest.mark.parametrize("frozen_seconds", [30, 600])
    async def test_a_second_job_that_comes_late_is_the_only_one(self, stage: Stage, frozen_seconds: int) -> None:
        """The held job was lost; the controller freezes on the submission of the next, for longer than a late job may take."""
        begun = await stage.begin()
        stage.slurm.lose_memory()
        assert stage.world.put_by_client(begun, CONTENT)
        await stage.world.work()
        submit = stage.world.scheduler.submit

        async def freezes(username: str, request: object) -> str:
            stage.slurm.lie(controller="frozen")
            return await submit(username, request)  # type: ignore[arg-type]

        stage.world.scheduler.submit = freezes  # type: ignore[method-assign, assignment]
        await stage.world.work()
        stage.world.scheduler.submit = submit  # type: ignore[method-assign]
        await stage.world.work(frozen_seconds // 30, seconds=30)
        await stage.is_now(State.STAGED)
        stage.slurm.thaw()
        transfer = await stage.until(State.QUEUED, seconds=60)
        assert [job["id"] for job in stage.slurm.open_jobs(transfer.job_name)] == [transfer.job_id]
        assert len(stage.slurm.calls("sbatch")) == 2
        stage.slurm.start(transfer.job_id or "")
        stage.slurm.finish(transfer.job_id or "")
        await stage.delivered()


class TestANodeThatFailed:
    async def test_a_script_that_runs_on_is_waited_for_and_done_only_with_its_receipt(self, stage: Stage) -> None:
        transfer = await stage.run()
        stage.slurm.set_job(transfer.job_id or "", state="NODE_FAIL", exit_="0:0")
        for step in range(1, 11):
            stage.slurm.progress(transfer.job_directory or "", step * 100)
            await stage.world.work(seconds=14)
            await stage.is_now(State.MOVING)
        stage.slurm.work(transfer.job_directory or "")
        await stage.delivered()
        assert "NODE_FAIL" in await stage.story()
        assert len(stage.slurm.calls("sbatch")) == 1

    async def test_its_job_runs_again_between_two_looks_and_the_story_tells_it(self, stage: Stage) -> None:
        transfer = await stage.run()
        signed = transfer.signed_at
        stage.slurm.requeue(transfer.job_id or "")
        stage.slurm.start(transfer.job_id or "")
        await stage.world.work()
        again = await stage.is_now(State.MOVING)
        assert again.restarts == 1
        assert signed is not None
        assert again.signed_at is not None
        assert again.signed_at > signed
        assert "put back into the queue and started again on n1 (2nd time)" in await stage.story()
        stage.slurm.finish(transfer.job_id or "")
        await stage.delivered()
