"""Uploads and downloads: whole, renewed, interrupted and resumed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.unit.client.fake_service import ID, TOKEN, URL, FakeService, Patience, listed
from tests.unit.mover.faulty_store import PART, SIGNATURE, hidden_files, md5, multipart_etag, part_crc32, some_bytes

from stagecoach.client import Client, ServiceError, TransferFailed
from stagecoach.client.journal import Journal, state_home
from stagecoach.client.service import Service
from stagecoach.client.sync import Client as SyncClient

CONTENT = some_bytes(9 * PART + 77)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(CONTENT)
    return path


def journals() -> list[str]:
    return sorted(os.listdir(state_home())) if state_home().exists() else []


def said_of(content: bytes, etag: str | None) -> dict[str, Any]:
    """What the service hears at the end of an upload."""
    return {"etag": etag, "partDigests": {"algorithm": "crc32", "values": part_crc32(content, PART)}}


def another_process(service: FakeService, patience: Patience) -> Client:
    return Client(URL, TOKEN, transport=service.transport(), clock=patience.clock())


async def interrupted(client: Client, service: FakeService, source: Path) -> None:
    """An upload that is stopped while its fifth part is on the way."""
    await stopped(client.upload("alps", source, "/scratch/a.bin"), service, "PUT")


async def stopped(moving: Coroutine[Any, Any, Any], service: FakeService, method: str) -> None:
    """Whatever it is, stopped when its fifth part and all after that stick."""
    for part in range(5, 11):
        service.store.fail(method, "hold", part=part)
    running = asyncio.ensure_future(moving)
    assert await asyncio.to_thread(service.store.waiting.wait, 10)
    await asyncio.sleep(0.3)  # the first four parts end meanwhile
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    service.store.hold.set()
    service.store.faults.clear()


@pytest.mark.parametrize("size", [0, 1, PART, 9 * PART + 77])
async def test_an_upload_arrives_and_leaves_nothing_here(client: Client, service: FakeService, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(some_bytes(size))
    seen: list[int] = []
    begun: list[str] = []
    done = await client.upload("alps", source, "/scratch/a.bin", seen.append, on_begun=begun.append)
    assert done.state == "done"
    assert begun == [ID]
    assert service.store.objects["object"] == some_bytes(size)
    assert service.finished_with == said_of(some_bytes(size), etag=None)
    assert service.asked.count(f"POST /transfers/{ID}/finish") == 1
    assert service.store.count("POST") == 0, "the service completes, and so knows the digests before anybody sees the object"
    assert done.client_leg is not None
    assert (done.client_leg.bytes_moved, done.client_leg.bytes_resumed) == (size, 0)
    assert journals() == []


async def test_a_digest_that_the_caller_knows_is_given_to_the_service(client: Client, service: FakeService, source: Path) -> None:
    await client.upload("alps", source, "/scratch/a.bin", sha256="AB" * 32)
    assert service.begun_with["sha256"] == "AB" * 32
    before = len(service.asked)
    with pytest.raises(TransferFailed, match="directory"):
        await client.upload("alps", source.parent, "/scratch/tree", sha256="AB" * 32)
    assert len(service.asked) == before


async def test_so_many_connections_at_once_as_were_asked_for(service: FakeService, patience: Patience, source: Path) -> None:
    alone = Client(URL, TOKEN, transport=service.transport(), clock=patience.clock(), connections=1)
    service.store.fail("PUT", "hold", part=1)
    sending = asyncio.ensure_future(alone.upload("alps", source, "/scratch/a.bin"))
    assert await asyncio.to_thread(service.store.waiting.wait, 10)
    await asyncio.sleep(0.3)  # in which others would have sent what they have
    assert [request.part for request in service.store.requests if request.method == "PUT"] == [1]
    service.store.hold.set()
    assert (await sending).state == "done"
    assert service.store.objects["object"] == CONTENT


@pytest.mark.parametrize("connections", [0, 65])
def test_no_other_number_of_connections_is_taken(connections: int) -> None:
    with pytest.raises(ValueError, match="connections"):
        Client(URL, TOKEN, connections=connections)


async def test_part_urls_that_expire_are_renewed(client: Client, service: FakeService, source: Path) -> None:
    service.store.fail("PUT", "expire", part=4)
    assert (await client.upload("alps", source, "/scratch/a.bin")).state == "done"
    assert service.store.objects["object"] == CONTENT
    assert f"GET /transfers/{ID}/parts" in service.asked


async def test_a_download_url_that_expires_is_renewed(client: Client, service: FakeService, tmp_path: Path) -> None:
    service.store.keep("object", CONTENT)
    service.store.fail("GET", "expire", part=4)
    target = tmp_path / "target.bin"
    target.write_bytes(b"old")
    assert (await client.download("alps", "/scratch/a.bin", target)).state == "done"
    assert target.read_bytes() == CONTENT
    assert service.asked.count(f"GET /transfers/{ID}/download-url") == 2
    assert journals() == []


async def test_an_interrupted_upload_is_resumed_by_another_process_and_no_part_is_put_twice(
    client: Client, service: FakeService, patience: Patience, source: Path
) -> None:
    await interrupted(client, service, source)
    stored = set(service.store.parts)
    assert 1 <= len(stored) < 10
    kept = "".join(path.read_text() for path in (state_home() / ID).iterdir())
    assert TOKEN not in kept
    assert SIGNATURE not in kept
    before = {number: service.store.count("PUT", part=number) for number in stored}
    done = await another_process(service, patience).resume(ID)
    assert done.client_leg is not None
    assert done.client_leg.bytes_resumed == sum(len(service.store.parts[number]) for number in stored)
    assert {number: service.store.count("PUT", part=number) for number in stored} == before
    assert service.store.objects["object"] == CONTENT
    assert service.finished_with == said_of(CONTENT, etag=None)
    assert journals() == []


async def test_after_a_crash_without_a_mover_journal_the_stores_parts_count(
    client: Client, service: FakeService, patience: Patience, source: Path
) -> None:
    await interrupted(client, service, source)
    (state_home() / ID / "journal.json").unlink()
    stored = set(service.store.parts)
    await another_process(service, patience).resume(ID)
    assert {service.store.count("PUT", part=number) for number in stored} == {1}
    assert service.store.objects["object"] == CONTENT
    assert service.finished_with == said_of(CONTENT, etag=None), "what was read for its MD5 was read for both"


async def test_a_journal_of_an_earlier_release_goes_on_and_nothing_is_said_of_its_parts(
    client: Client, service: FakeService, patience: Patience, source: Path
) -> None:
    await interrupted(client, service, source)
    kept = state_home() / ID / "journal.json"
    journal = json.loads(kept.read_text())
    journal["parts"] = {number: entry[:2] for number, entry in journal["parts"].items()}
    kept.write_text(json.dumps(journal))
    assert (await another_process(service, patience).resume(ID)).state == "done"
    assert service.finished_with == {"etag": None}
    assert service.store.objects["object"] == CONTENT


async def test_where_digests_come_too_late_the_upload_ends_without_them(
    client: Client, service: FakeService, source: Path
) -> None:
    service.takes_digests = False
    assert (await client.upload("alps", source, "/scratch/file")).state == "done"
    assert service.finished_with == {"etag": None}
    assert service.asked.count(f"POST /transfers/{ID}/finish") == 2


async def test_without_any_journal_the_local_file_must_be_named_and_is_compared(
    client: Client, service: FakeService, patience: Patience, source: Path
) -> None:
    await interrupted(client, service, source)
    Journal(state_home(), ID).remove()
    with pytest.raises(TransferFailed, match="which local file") as caught:
        await another_process(service, patience).resume(ID)
    assert caught.value.code == "local_path_unknown"
    another = source.with_name("another.bin")
    another.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(TransferFailed, match="not of this file") as caught:
        await another_process(service, patience).resume(ID, another)
    assert caught.value.code == "source_changed"
    Journal(state_home(), ID).remove()
    await another_process(service, patience).resume(ID, source)
    assert service.store.objects["object"] == CONTENT


@pytest.mark.parametrize("loses_journal", [False, True])
async def test_a_source_that_changed_since_is_refused(
    client: Client, service: FakeService, patience: Patience, source: Path, loses_journal: bool
) -> None:
    await interrupted(client, service, source)
    if loses_journal:
        (state_home() / ID / "journal.json").unlink()
    source.write_bytes(some_bytes(9 * PART + 78)[: 9 * PART + 77])
    os.utime(source, (1, 1))
    with pytest.raises(TransferFailed) as caught:
        await another_process(service, patience).resume(ID)
    assert caught.value.code == "source_changed"
    assert f"transfers cancel {ID}" in (caught.value.next_step or "")
    assert "object" not in service.store.objects


async def test_an_upload_completed_by_a_request_whose_answer_was_lost_goes_on(
    client: Client, service: FakeService, source: Path
) -> None:
    service.takes_digests = False
    service.store.fail("POST", "lost_answer")
    assert (await client.upload("alps", source, "/scratch/a.bin")).state == "done"
    assert service.finished_with == {"etag": multipart_etag(CONTENT, PART)}
    assert service.store.completed == 1


async def test_a_service_that_completed_and_whose_answer_was_lost_is_asked_again(
    client: Client, service: FakeService, source: Path
) -> None:
    service.loses_answer_to_finish = True
    assert (await client.upload("alps", source, "/scratch/a.bin")).state == "done"
    assert service.finished_with == said_of(CONTENT, etag=None)
    assert service.asked.count(f"POST /transfers/{ID}/finish") == 2
    assert (service.store.completed, service.store.count("POST")) == (1, 0)


async def test_a_stop_while_the_service_completes_leaves_the_rest_to_another_process(
    client: Client, service: FakeService, patience: Patience, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never(*_arguments: object, **_more: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(Service, "finish", never)
        uploading = asyncio.ensure_future(client.upload("alps", source, "/scratch/a.bin"))
        await asked.wait()
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    assert service.store.completed == 0
    done = await another_process(service, patience).resume(ID)
    assert done.state == "done"
    assert done.client_leg is not None
    assert done.client_leg.bytes_resumed == len(CONTENT)
    assert service.finished_with == said_of(CONTENT, etag=None)


async def test_an_upload_cancelled_elsewhere_says_so_and_is_forgotten(client: Client, service: FakeService, source: Path) -> None:
    service.store.fail("PUT", "status", part=3, status=404, body=b"<Error><Code>NoSuchUpload</Code></Error>")

    def cancelled_by_somebody(_transfer_id: str) -> None:
        service.state, service.reason = "cancelled", "You cancelled it."

    with pytest.raises(TransferFailed) as caught:
        await client.upload("alps", source, "/scratch/a.bin", on_begun=cancelled_by_somebody)
    assert (caught.value.code, caught.value.message) == ("cancelled", "You cancelled it.")
    assert journals() == []


async def test_an_interrupted_download_is_resumed_by_another_process(
    client: Client, service: FakeService, patience: Patience, tmp_path: Path
) -> None:
    service.store.keep("object", CONTENT)
    target = tmp_path / "target.bin"
    await stopped(client.download("alps", "/scratch/a.bin", target), service, "GET")
    assert not target.exists()
    done = await another_process(service, patience).resume(ID)
    assert target.read_bytes() == CONTENT
    assert done.client_leg is not None
    assert done.client_leg.bytes_resumed > 0
    assert journals() == []
    assert hidden_files(tmp_path) == []


async def test_the_journal_of_a_failed_download_stays_while_it_may_be_retried(
    client: Client, service: FakeService, patience: Patience, tmp_path: Path
) -> None:
    service.store.keep("object", CONTENT)
    target = tmp_path / "target.bin"
    await stopped(client.download("alps", "/scratch/a.bin", target), service, "GET")
    service.state, service.code, service.retry_until = "failed", "job_cancelled", "2030-01-02T12:00:00Z"
    with pytest.raises(TransferFailed, match="failed") as caught:
        await another_process(service, patience).resume(ID)
    assert caught.value.can_be_retried
    assert journals() == [ID]
    assert (await client.retry(ID)).state == "queued"
    service.state = "staged"
    done = await another_process(service, patience).resume(ID)
    assert done.client_leg is not None
    assert done.client_leg.bytes_resumed > 0
    assert target.read_bytes() == CONTENT
    assert journals() == []


async def test_cancel_leaves_nothing_of_a_download_here(client: Client, service: FakeService, tmp_path: Path) -> None:
    service.store.keep("object", CONTENT)
    await stopped(client.download("alps", "/scratch/a.bin", tmp_path / "target.bin"), service, "GET")
    assert hidden_files(tmp_path)
    await client.cancel(ID)
    assert hidden_files(tmp_path) == []
    assert journals() == []


async def test_a_beginning_that_is_interrupted_leaves_a_transfer_that_can_be_resumed(
    client: Client, service: FakeService, patience: Patience, source: Path
) -> None:
    running = asyncio.ensure_future(client.upload("alps", source, "/scratch/a.bin"))
    while not journals() and not service.asked:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert journals() == [ID]
    assert (await another_process(service, patience).resume(ID)).state == "done"
    assert service.store.objects["object"] == CONTENT


async def test_two_processes_do_not_move_the_same_transfer(client: Client, service: FakeService, source: Path) -> None:
    service.size_bytes = len(CONTENT)
    with Journal(state_home(), ID).locked(), pytest.raises(TransferFailed) as caught:
        await client.resume(ID, source)
    assert caught.value.code == "already_running"
    assert caught.value.retryable


async def test_a_transfer_that_went_on_without_us_is_only_waited_for(client: Client, service: FakeService, source: Path) -> None:
    service.state = "done"
    assert (await client.resume(ID)).client_leg is None
    service.state, service.reason = "expired", "It was not used in time."
    with pytest.raises(TransferFailed, match="not used in time"):
        await client.resume(ID)
    with pytest.raises(ServiceError, match="no id of a transfer"):
        await client.resume("../../etc")


async def test_what_cannot_be_sent_is_refused_before_anything_is_begun(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path / "nothing"):
        with pytest.raises(TransferFailed) as caught:
            await client.upload("alps", path, "/scratch/a.bin")
        assert caught.value.code == "source_missing"
    with pytest.raises(TransferFailed, match="no directory"):
        await client.download("alps", "/scratch/a.bin", tmp_path / "no" / "where")
    assert service.asked == []


async def test_a_directory_is_listed(client: Client, service: FakeService) -> None:
    service.listing = [listed("a", size=str(2**62)), {**listed("bad"), "nameBase64": "YmFk"}]
    answer = await client.list_directory("alps", "/scratch/é &", show_hidden=True, dereference=True)
    assert [(file.name, file.size, file.link_target, file.name_base64) for file in answer.output] == [
        ("a", str(2**62), None, None),
        ("bad", "5", None, "YmFk"),
    ]
    assert service.listed_with == {"path": "/scratch/é &", "showHidden": "true", "dereference": "true"}
    with pytest.raises(ServiceError) as caught:
        await client.list_directory("nowhere/../alps", "/x")
    assert caught.value.status == 404


def test_the_synchronous_skin_does_the_same(service: FakeService, source: Path, tmp_path: Path) -> None:
    with SyncClient(URL, TOKEN, transport=service.transport()) as client:
        assert client.upload("alps", source, "/scratch/a.bin").state == "done"
        assert client.transfers(limit=1).transfers[0].id == ID
        assert client.transfer(ID).state == "done"
        assert client.download("alps", "/scratch/a.bin", tmp_path / "back.bin").state == "done"
        assert client.list_directory("alps", "/scratch", recursive=True, numeric_ids=True).output == []
        assert service.listed_with == {"path": "/scratch", "recursive": "true", "numericUid": "true"}
        assert client.cancel(ID).state == "cancelled"
    assert md5((tmp_path / "back.bin").read_bytes()) == md5(CONTENT)


def test_ctrl_c_in_the_synchronous_skin_leaves_what_can_be_resumed(service: FakeService, source: Path) -> None:
    for part in range(5, 11):
        service.store.fail("PUT", "hold", part=part)

    def press_ctrl_c(_transfer_id: str) -> None:
        main = threading.main_thread().ident or 0

        def press() -> None:
            service.store.waiting.wait(10)
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=press).start()

    with SyncClient(URL, TOKEN, transport=service.transport()) as client:
        with pytest.raises(KeyboardInterrupt):
            client.upload("alps", source, "/scratch/a.bin", on_begun=press_ctrl_c)
        service.store.hold.set()
        service.store.faults.clear()
        assert client.resume(ID).state == "done"
    assert service.store.objects["object"] == CONTENT


async def test_a_name_that_is_no_unicode_is_kept(
    client: Client, service: FakeService, patience: Patience, tmp_path: Path
) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    source.write_bytes(CONTENT)
    await interrupted(client, service, source)
    assert json.loads((state_home() / ID / "transfer.json").read_bytes())["local"] == str(source)
    assert (await another_process(service, patience).resume(ID)).state == "done"
