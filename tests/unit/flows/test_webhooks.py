"""Each change of state is told at least once, in order, signed, by one worker at a time, and to nobody else."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from tests.fakes.receiver import SECRET, Receiver
from tests.fakes.world import ALICE, World, open_world, world_settings
from tests.unit.flows.test_a_transfers_life import CONTENT, TARGET

from stagecoach.core.errors import WebhookRefused
from stagecoach.core.transfer import State, Transfer
from stagecoach.core.webhooks import wait_seconds
from stagecoach.database.tables import webhook_deliveries
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.deliver_webhooks import AT_ONCE_PER_HOST, KEPT_DAYS, Deliverer, deliver_webhooks
from stagecoach.flows.post_webhook import open_client
from stagecoach.flows.show_transfers import WebhookReport, show_webhook
from stagecoach.logs import start_logging
from stagecoach.settings import LogSettings

ALL = ["receiving", "staged", "queued", "moving", "done"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as listening:
        yield listening


@pytest.fixture
async def world(tmp_path: Path, database_template: Path, receiver: Receiver) -> AsyncIterator[World]:
    """It may tell the receiver, also under other names."""
    hosts = [f"{host}:{receiver.port}" for host in ("127.0.0.1", "metadata.example.org", "twice.example.org", "[::1]")]
    webhooks = {"allowed_hosts": hosts, "signing_secret": SECRET, "allow_http": True, "timeout_seconds": 5}
    async with open_world(tmp_path, database_template, world_settings(webhooks=webhooks)) as opened:
        yield opened


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as client:
        yield client


async def look_up(host: str, port: int) -> Sequence[str]:
    """The names of this file's world."""
    known = {
        "metadata.example.org": ["169.254.169.254", "fe80::1"],
        "twice.example.org": ["fe80::1", "::1", "127.0.0.1"],
        "[::1]": ["::1"],
    }
    return known.get(host, [host])


async def begun(world: World, url: str, target: str = TARGET) -> Transfer:
    return (await begin_upload(world.tools, ALICE, "alps", target, len(CONTENT), webhook_url=url)).transfer


async def lived(world: World, url: str) -> Transfer:
    """An upload from its first state to its last."""
    upload = await begin_upload(world.tools, ALICE, "alps", TARGET, len(CONTENT), webhook_url=url)
    assert world.put_by_client(upload, CONTENT)
    await world.work(3)
    world.nodes.start_pending()
    await world.work()
    world.nodes.finish_running()
    await world.work(2)
    done = await world.get(upload.transfer.id)
    assert done.state is State.DONE
    return done


async def deliver(deliverer: Deliverer) -> None:
    while await deliverer.round():
        await deliverer.settle()


async def standing(world: World, transfer: Transfer) -> WebhookReport:
    report = await show_webhook(world.tools, transfer)
    assert report is not None
    return report


async def test_every_change_of_state_is_told_in_order_and_signed(
    world: World, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    done = await lived(world, receiver.url)
    assert (await standing(world, done)).pending == 5
    await deliver(Deliverer(world.tools, http))
    assert receiver.states == ALL
    assert all(message.is_signed for message in receiver.messages)
    last = receiver.messages[-1]
    assert last.path == "/hook?token=s3cret"
    assert last.headers["content-type"] == "application/json"
    assert last.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert last.headers["webhook-timestamp"] == str(int(world.clock.time.timestamp()))
    document = last.document
    assert set(document) == {"type", "id", "timestamp", "data"}
    assert (document["type"], document["id"]) == ("transfer.state_changed", last.headers["webhook-id"])
    assert datetime.fromisoformat(document["timestamp"]) == done.ended_at
    assert (document["data"]["id"], document["data"]["bytesMoved"], document["data"]["owner"]) == (done.id, len(CONTENT), "alice")
    assert "s3cret" not in last.body.decode()
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == 5
    assert await standing(world, done) == WebhookReport(f"127.0.0.1:{receiver.port}", 0, None)


async def test_what_is_no_change_of_state_and_what_was_not_saved_is_not_told(
    world: World, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    transfer = await begun(world, receiver.url)
    await world.work(20)
    await deliver(Deliverer(world.tools, http))
    assert receiver.states == ["receiving"]
    await cancel_transfer(world.tools, ALICE, transfer.id)
    await deliver(Deliverer(world.tools, http))
    assert receiver.states == ["receiving", "cancelling", "cancelled"]


async def test_a_receiver_that_fails_gets_all_of_it_later_in_order(
    world: World, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    done = await lived(world, receiver.url)
    receiver.answers = [500, 503, 302, 404, 204, 500]
    receiver.more = {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}
    deliverer = Deliverer(world.tools, http)
    for tries in range(1, 5):
        await deliver(deliverer)
        assert receiver.states == ["receiving"] * tries
        report = await standing(world, done)
        assert report.pending == 5
        assert report.trouble == f"127.0.0.1:{receiver.port} answered HTTP {[500, 503, 302, 404][tries - 1]}."
        world.clock.advance(wait_seconds(tries, 0.0) - 0.01)
        assert await deliverer.round() == 0
        world.clock.advance(wait_seconds(tries, 1.0) - wait_seconds(tries, 0.0) + 0.02)
    await deliver(deliverer)
    assert receiver.states == ["receiving"] * 5 + ["staged"]
    world.clock.advance(10)
    await deliver(deliverer)
    assert receiver.states == ["receiving"] * 5 + ["staged"] * 2 + ["queued", "moving", "done"]
    assert all(message.is_signed for message in receiver.messages)
    first, again = receiver.messages[0], receiver.messages[1]
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert first.body == again.body
    assert int(again.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    assert {message.path for message in receiver.messages} == {"/hook?token=s3cret"}
    assert (await standing(world, done)).pending == 0


async def test_what_cannot_be_delivered_is_given_up_and_the_next_is_told(
    world: World, receiver: Receiver, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    done = await lived(world, receiver.url)
    receiver.answers = [500] * 10
    deliverer = Deliverer(world.tools, http)
    began = world.clock.time
    for tries in range(1, 10):
        await deliver(deliverer)
        assert receiver.states == ["receiving"] * tries
        world.clock.advance(wait_seconds(tries, 1.0) + 0.01)
    assert world.clock.time - began > timedelta(days=1)
    await deliver(deliverer)
    assert receiver.states == ["receiving"] * 10 + ["staged", "queued", "moving", "done"]
    report = await standing(world, done)
    assert report.pending == 0
    assert "Given up after 10 tries" in (report.trouble or "")
    assert "s3cret" not in caplog.text
    assert "HTTP 500" in caplog.text


async def test_a_receiver_that_is_not_there_is_told_later(world: World, http: httpx.AsyncClient) -> None:
    absent = Receiver()
    with absent.listening():
        pass
    done = await lived(world, absent.url.replace(str(absent.port), str(world_port(world))))
    object.__setattr__(world.settings.webhooks, "allowed_hosts", (f"127.0.0.1:{absent.port}",))
    other = await begun(world, absent.url, TARGET + "2")
    await deliver(Deliverer(world.tools, http))
    assert (await standing(world, other)).trouble == f"127.0.0.1:{absent.port} could not be reached (ConnectError)."
    assert "is none of the hosts" in ((await standing(world, done)).trouble or "")
    with absent.listening():
        world.clock.advance(10)
        await deliver(Deliverer(world.tools, http))
    assert absent.states == ["receiving"]


def world_port(world: World) -> int:
    return int(world.settings.webhooks.allowed_hosts[0].rpartition(":")[2])


async def test_a_receiver_that_says_gone_is_told_no_more_of_that_transfer(
    world: World, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    transfer = await begun(world, receiver.url)
    receiver.answers = [410]
    await deliver(Deliverer(world.tools, http))
    await cancel_transfer(world.tools, ALICE, transfer.id)
    await deliver(Deliverer(world.tools, http))
    assert receiver.states == ["receiving"]
    report = await standing(world, transfer)
    assert report.pending == 0
    assert "410" in (report.trouble or "")
    await begun(world, receiver.url, TARGET + "2")
    await deliver(Deliverer(world.tools, http))
    assert receiver.states == ["receiving", "receiving"]


async def test_a_name_that_leads_to_a_metadata_service_is_not_posted_to(
    world: World, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    transfer = await begun(world, receiver.url.replace("127.0.0.1", "metadata.example.org"))
    await deliver(Deliverer(world.tools, http, look_up))
    assert "no address that messages may be posted to" in ((await standing(world, transfer)).trouble or "")
    assert receiver.messages == []


async def test_the_address_that_was_looked_at_is_the_one_that_is_used(
    world: World, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    """Of three addresses one is refused, one has no listener; the name stays in the Host header."""
    await begun(world, receiver.url.replace("127.0.0.1", "twice.example.org"))
    await deliver(Deliverer(world.tools, http, look_up))
    (message,) = receiver.messages
    assert message.headers["host"] == f"twice.example.org:{receiver.port}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_over_tls_the_certificate_must_be_the_name_s(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, authority = tmp_path / "key.pem", tmp_path / "ca.pem"
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hooks"
    more = ["-addext", "subjectAltName=DNS:hooks.example.org", "-keyout", str(key), "-out", str(authority)]
    subprocess.run(["openssl", *asked.split(), *more], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    async def loopback(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    with Receiver(certificate=(authority, key)).listening() as receiver:
        hosts = [f"{name}.example.org:{receiver.port}" for name in ("hooks", "other")]
        object.__setattr__(world.settings.webhooks, "allowed_hosts", tuple(hosts))
        async with open_client() as http:
            for host in hosts:
                await begun(world, f"https://{host}/hook", f"{TARGET}-{host}")
            await deliver(Deliverer(world.tools, http, loopback))
    assert [message.headers["host"] for message in receiver.messages] == hosts[:1]
    troubles = [(await standing(world, transfer)).trouble for transfer in await world.all_transfers()]
    assert sorted(map(str, troubles)) == sorted(["None", f"{hosts[1]} could not be reached (ConnectError)."])


async def test_a_name_that_is_not_found_is_tried_again(world: World, receiver: Receiver, http: httpx.AsyncClient) -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    transfer = await begun(world, receiver.url)
    await deliver(Deliverer(world.tools, http, unknown))
    assert (await standing(world, transfer)).trouble == f"127.0.0.1:{receiver.port} could not be found (OSError)."
    assert (await standing(world, transfer)).pending == 1


async def test_an_endless_answer_is_not_read_and_a_silent_receiver_is_not_waited_for(
    world: World, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    receiver.answers, receiver.body = [200], bytes(30_000_000)
    await begun(world, receiver.url)
    await deliver(Deliverer(world.tools, http))
    assert receiver.states == ["receiving"]
    object.__setattr__(world.settings.webhooks, "timeout_seconds", 0.2)

    async def slow(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        raise AssertionError

    other = await begun(world, receiver.url, TARGET + "2")
    await asyncio.wait_for(deliver(Deliverer(world.tools, http, slow)), 10)
    assert (await standing(world, other)).trouble == f"127.0.0.1:{receiver.port} did not answer within 0.2 seconds."


async def test_two_workers_never_deliver_one_message_at_the_same_time_and_a_dead_ones_is_taken_over(
    world: World, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    for number in range(5):
        await begun(world, receiver.url, f"{TARGET}{number}")
    first, second = Deliverer(world.tools, http), Deliverer(world.tools, http)
    taken = await asyncio.gather(first.round(), second.round())
    await asyncio.gather(first.settle(), second.settle())
    assert sum(taken) == 5
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == len(receiver.messages) == 5
    await begun(world, receiver.url, f"{TARGET}9")
    (lost,) = await world.tools.deliveries.claim_due(world.clock.now(), 40, 10)
    assert await first.round() == 0
    world.clock.advance(40.1)
    await deliver(first)
    assert (len(receiver.messages), receiver.messages[-1].headers["webhook-id"]) == (6, lost.id)
    # What the dead one says of it later changes nothing.
    await world.tools.deliveries.put_off(lost, world.clock.now(), "late")
    assert await first.round() == 0


async def test_a_host_that_hangs_keeps_no_room_from_the_others(world: World, receiver: Receiver, http: httpx.AsyncClient) -> None:
    hang = asyncio.Event()

    async def hanging(host: str, port: int) -> Sequence[str]:
        if host == "twice.example.org":
            await hang.wait()
        return ["127.0.0.1"]

    limits = world.settings.systems[0].limits.model_copy(update={"max_open_transfers_per_user": 1000})
    object.__setattr__(world.settings.systems[0], "limits", limits)
    for number in range(3 * AT_ONCE_PER_HOST):
        await begun(world, receiver.url.replace("127.0.0.1", "twice.example.org"), f"{TARGET}{number}")
    await begun(world, receiver.url, f"{TARGET}-quick")
    deliverer = Deliverer(world.tools, http, hanging)
    async with asyncio.timeout(20):
        while not receiver.messages:
            await deliverer.round()
            await asyncio.sleep(0.01)
    assert receiver.messages[0].headers["host"].startswith("127.0.0.1")
    hang.set()
    await deliverer.settle()


async def test_what_is_over_is_forgotten_after_some_days_and_what_is_not_is_kept(
    world: World, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    done = await lived(world, receiver.url)
    deliverer = Deliverer(world.tools, http)
    await deliver(deliverer)
    receiver.answers = [500] * 100
    failing = await begun(world, receiver.url, TARGET + "2")
    await deliver(deliverer)
    kept = (await stored(world)).count
    assert (kept(done.id), kept(failing.id)) == (5, 1)
    world.clock.advance(KEPT_DAYS * 86400 + 60)
    await deliver(deliverer)
    kept = (await stored(world)).count
    assert (kept(done.id), kept(failing.id)) == (0, 1)


async def stored(world: World) -> list[str]:
    """The transfer of each message that is remembered."""
    async with world.engine.connect() as connection:
        return [row.transfer_id for row in await connection.execute(select(webhook_deliveries))]


async def test_the_loop_ends_when_it_is_told_to_and_does_not_begin_where_nobody_is_allowed(
    world: World, receiver: Receiver, tmp_path: Path, database_template: Path
) -> None:
    await begun(world, receiver.url)
    stop = asyncio.Event()
    running = asyncio.create_task(deliver_webhooks(world.tools, stop))
    async with asyncio.timeout(20):
        while not receiver.messages:
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(running, 5)
    (tmp_path / "other").mkdir()
    async with open_world(tmp_path / "other", database_template) as other:
        await asyncio.wait_for(deliver_webhooks(other.tools, asyncio.Event()), 5)


@pytest.mark.parametrize("direction", ["upload", "download"])
async def test_a_webhook_that_is_not_allowed_is_refused_before_anything_is_made(world: World, direction: str) -> None:
    world.files.add_file(TARGET, "alice", CONTENT)
    url = "http://elsewhere.example.org/?s3cret"
    with pytest.raises(WebhookRefused):
        if direction == "upload":
            await begin_upload(world.tools, ALICE, "alps", TARGET, 1, webhook_url=url)
        else:
            await begin_download(world.tools, ALICE, "alps", TARGET, webhook_url=url)
    assert await world.all_transfers() == []
    assert world.left_outside() == []


async def test_no_log_line_holds_the_url(
    world: World, receiver: Receiver, http: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    start_logging(LogSettings(level="debug"))
    try:
        receiver.answers = [500]
        transfer = await begun(world, receiver.url)
        deliverer = Deliverer(world.tools, http)
        await deliver(deliverer)
        world.clock.advance(10)
        await deliver(deliverer)
    finally:
        logging.getLogger().handlers, logging.getLogger().level = before
    logged = capsys.readouterr().err
    assert "HTTP 500" in logged
    assert "s3cret" not in logged
    assert SECRET not in logged
    assert json.dumps(receiver.messages[0].document).count("s3cret") == 0
    assert transfer.webhook_url == receiver.url
