"""What administrators change while the service runs: it holds in every process, by the file's rules, until it is unset."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.fakes.systems import put_by_urls
from tests.fakes.world import World
from tests.unit.api.answers import problem

from stagecoach.core.audit_log import AuditFilter
from stagecoach.core.errors import DatabaseUnavailable
from stagecoach.core.names import object_key
from stagecoach.core.transfer import State
from stagecoach.flows import change_settings
from stagecoach.flows.change_settings import follow_settings, refresh_settings
from stagecoach.flows.reconcile_buckets import reconcile_buckets
from stagecoach.flows.record_act import audit_lines
from stagecoach.flows.toolbox import Toolbox
from stagecoach.settings.run_time import SettingsInForce

UPLOAD = "/filesystem/alps/transfer/upload"
MEBIBYTE = 1024**2


async def change(
    admin: httpx.AsyncClient, values: dict[str, Any] | None = None, unset: list[str] | None = None
) -> httpx.Response:
    return await admin.patch("/admin/settings", json={"set": values or {}, "unset": unset or []})


async def settings(admin: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    answer = await admin.get("/admin/settings")
    assert answer.status_code == 200, answer.text
    return {setting["name"]: setting for setting in answer.json()["settings"]}


async def begin(client: httpx.AsyncClient, name: str, size: int = 10, system: str = "alps") -> httpx.Response:
    body: dict[str, Any] = {"path": f"/home/alice/{name}", "transferDirectives": {"fileSize": size}, "account": "proj"}
    return await client.post(f"/filesystem/{system}/transfer/upload", json=body)


async def test_the_next_upload_uses_a_changed_part_size(admin: httpx.AsyncClient, alice: httpx.AsyncClient) -> None:
    before = (await begin(alice, "a", 40 * MEBIBYTE)).json()["transferDirectives"]
    assert (before["maxPartSize"], len(before["partsUploadUrls"])) == (8 * MEBIBYTE, 5)
    assert (await change(admin, {"s3.max_part_size": 5 * MEBIBYTE})).status_code == 200
    after = (await begin(alice, "b", 40 * MEBIBYTE)).json()["transferDirectives"]
    assert (after["maxPartSize"], len(after["partsUploadUrls"])) == (5 * MEBIBYTE, 8)
    refused = await begin(alice, "c", 5 * MEBIBYTE * 10_000 + 1)
    assert problem(refused, 400, "size_refused")["data"]["limit_bytes"] == 5 * MEBIBYTE * 10_000
    assert (await change(admin, unset=["s3.max_part_size"])).status_code == 200
    again = (await begin(alice, "d", 40 * MEBIBYTE)).json()["transferDirectives"]
    assert again["maxPartSize"] == 8 * MEBIBYTE


async def test_what_is_changed_is_shown_beside_what_the_file_says(admin: httpx.AsyncClient, world: World) -> None:
    assert not any(setting["isChanged"] for setting in (await settings(admin)).values())
    await change(admin, {"s3.max_staged_bytes_per_user": 1000, "systems.bora.enabled": False})
    shown = await settings(admin)
    assert shown["s3.max_staged_bytes_per_user"] == {
        "name": "s3.max_staged_bytes_per_user",
        "description": "Quota: bytes of one user's transfers that may be in the store at once; unset, no quota.",
        "value": 1000,
        "fileValue": None,
        "isChanged": True,
        "changedAt": world.clock.now().isoformat().replace("+00:00", "Z"),
        "changedBy": "carol",
    }
    assert {name for name, setting in shown.items() if setting["isChanged"]} == {
        "s3.max_staged_bytes_per_user",
        "systems.bora.enabled",
    }
    await change(admin, unset=["s3.max_staged_bytes_per_user", "systems.bora.enabled"])
    assert not any(setting["isChanged"] for setting in (await settings(admin)).values())


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"s3.max_part_size": 5 * MEBIBYTE - 1}, "greater than or equal to 5242880"),
    ({"s3.max_part_size": 5 * 1024 * MEBIBYTE + 1}, "less than or equal to 5368709120"),
    ({"s3.max_part_size": "large"}, "valid integer"),
    ({"s3.max_part_size": None}, "valid integer"),
    ({"s3.max_staged_bytes_per_user": True}, "valid integer"),
    ({"s3.max_staged_bytes_per_user": "5000"}, "valid integer"),
    ({"systems.alps.enabled": 0}, "valid boolean"),
    ({"s3.bucket_lifecycle_configuration.days": 0}, "greater than or equal to 1"),
    ({"s3.bucket_lifecycle_configuration.abort_incomplete_multipart_days": 1}, "upload_seconds"),
    ({"systems.alps.limits.max_open_transfers": 0}, "greater than or equal to 1"),
    ({"systems.alps.enabled": "perhaps"}, "valid boolean"),
    ({"systems.alps.disabled_reason": "line\nline"}, "pattern"),
    ({"systems.nowhere.enabled": False}, "no such setting"),
    ({"systems.alps.name": "x"}, "no such setting"),
    ({"s3.secret_access_key": "mine"}, "no such setting"),
    ({"s3.private_url": "http://mine"}, "no such setting"),
    ({"auth.admin_role": "everybody"}, "no such setting"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=lambda value: str(value)[:50])
async def test_a_wrong_change_is_refused_as_the_file_would_be_and_nothing_of_it_holds(
    admin: httpx.AsyncClient, world: World, values: dict[str, Any], words: str
) -> None:
    answer = await change(admin, {"s3.max_staged_bytes": 5, **values})
    body = problem(answer, 400, "setting_refused")
    (name,) = values
    assert body["message"].startswith(f"{name}: ")
    assert words in body["message"]
    assert body["data"] == {"name": name}
    assert not any(setting["isChanged"] for setting in (await settings(admin)).values())
    assert world.tools.settings.s3.max_staged_bytes is None
    (line,) = [line async for line in audit_lines(world.tools, AuditFilter())]
    assert (line.who, line.what, line.result) == ("carol", "settings.change", "setting_refused")


async def test_a_change_is_no_change_in_both_directions_or_of_nothing_known(admin: httpx.AsyncClient) -> None:
    problem(await change(admin, {"s3.max_staged_bytes": 5}, ["s3.max_staged_bytes"]), 400, "setting_refused")
    problem(await change(admin, unset=["s3.region"]), 400, "setting_refused")
    assert (await change(admin, unset=["s3.max_staged_bytes"])).status_code == 200, "it was not set, and is not set now"


async def test_who_changed_what_from_what_is_written_down(admin: httpx.AsyncClient, world: World) -> None:
    await change(admin, {"s3.max_staged_bytes": 5})
    await change(admin, {"s3.max_staged_bytes": 6}, ["s3.max_part_size"])
    lines = [line async for line in audit_lines(world.tools, AuditFilter())]
    assert [(line.who, line.what, line.result, dict(line.detail)) for line in lines] == [
        (
            "carol",
            "settings.change",
            "done",
            {"set": {"s3.max_staged_bytes": 5}, "unset": [], "before": {"s3.max_staged_bytes": None}},
        ),
        (
            "carol",
            "settings.change",
            "done",
            {
                "set": {"s3.max_staged_bytes": 6},
                "unset": ["s3.max_part_size"],
                "before": {"s3.max_staged_bytes": 5, "s3.max_part_size": 1024 * MEBIBYTE},
            },
        ),
    ]


async def test_quotas_hold_from_the_next_transfer_on(admin: httpx.AsyncClient, alice: httpx.AsyncClient, world: World) -> None:
    assert (await begin(alice, "a", 600)).status_code == 201
    await change(admin, {"s3.max_staged_bytes_per_user": 1000})
    assert problem(await begin(alice, "b", 600), 409, "quota_reached")["data"]["limit_bytes"] == 1000
    await change(admin, {"systems.alps.limits.max_open_transfers_per_user": 1}, ["s3.max_staged_bytes_per_user"])
    assert problem(await begin(alice, "b", 600), 429, "too_many_transfers")["data"]["limit"] == 1
    await change(admin, {"systems.alps.limits.max_open_transfers_per_user": 2})
    assert (await begin(alice, "b", 600)).status_code == 201


async def test_a_disabled_system_takes_no_new_transfers_and_lets_the_open_ones_end(
    admin: httpx.AsyncClient, alice: httpx.AsyncClient, world: World
) -> None:
    first = (await begin(alice, "a")).json()
    other = (await begin(alice, "b")).json()["transferId"]
    why = "Maintenance until Tuesday."
    await change(admin, {"systems.alps.enabled": False, "systems.alps.disabled_reason": why})
    answer = await begin(alice, "c")
    assert why in problem(answer, 503, "system_disabled")["message"]
    assert answer.headers["retry-after"] == "300"
    world.files.add_file("/home/alice/y", "alice", b"x")
    down = await alice.post("/filesystem/alps/transfer/download", json={"path": "/home/alice/y"})
    assert problem(down, 503, "system_disabled")["data"]["reason"] == why
    assert (await begin(alice, "d", system="bora")).status_code == 201
    assert await load(admin, "bora") == (1, 10)
    urls = first["transferDirectives"]
    assert put_by_urls(world.store.follow, bytes(10), urls["maxPartSize"], urls["partsUploadUrls"], urls["completeUploadUrl"])
    await alice.post(f"/transfers/{first['transferId']}/finish")
    for _ in range(12):
        await world.work(2)
        world.let_cluster_work()
    assert (await world.get(first["transferId"])).state is State.DONE
    assert (await alice.delete(f"/transfers/{other}")).json()["state"] == "cancelled"
    systems = {system["name"]: system for system in (await admin.get("/admin/systems")).json()["systems"]}
    assert systems["alps"] == {
        "name": "alps",
        "enabled": False,
        "disabledReason": why,
        "scheduler": "slurm",
        "openTransfers": 0,
        "stagedBytes": 0,
    }
    await change(admin, {"systems.alps.enabled": True})
    assert (await begin(alice, "c")).status_code == 201


async def test_it_is_seen_who_uses_how_much_as_the_bounds_count_it(
    admin: httpx.AsyncClient, alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    async def usage(**question: int) -> Any:
        answer = await admin.get("/admin/usage", params=question)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert await usage() == {"maxStagedBytesPerUser": None, "users": []}
    most = (await settings(admin))["systems.alps.limits.max_open_transfers_per_user"]["value"]
    for name, size, system in (("a", 100, "alps"), ("b", 20, "alps"), ("c", 3, "bora")):
        assert (await begin(alice, name, size, system)).status_code == 201
    body = {"path": "/home/bob/x", "transferDirectives": {"fileSize": 500}, "account": "proj"}
    bobs = (await bob.post(UPLOAD, json=body)).json()["transferId"]
    await change(admin, {"s3.max_staged_bytes_per_user": 1000, "systems.bora.limits.max_open_transfers_per_user": 7})
    alices = {
        "user": "alice",
        "stagedBytes": 123,
        "openTransfers": [{"system": "alps", "count": 2, "most": most}, {"system": "bora", "count": 1, "most": 7}],
    }
    of_bob = {"user": "bob", "stagedBytes": 500, "openTransfers": [{"system": "alps", "count": 1, "most": most}]}
    assert await usage() == {"maxStagedBytesPerUser": 1000, "users": [of_bob, alices]}
    assert (await usage(limit=1))["users"] == [of_bob]
    # What the page says is what refuses: 877 more are within alice's thousand, and 878 are not.
    assert problem(await begin(alice, "d", 878), 409, "quota_reached")["data"]["used_bytes"] == 123
    assert (await bob.delete(f"/transfers/{bobs}")).status_code == 200
    assert problem(await alice.get("/admin/usage"), 403, "permission_denied")


async def load(admin: httpx.AsyncClient, name: str) -> tuple[int, int]:
    systems = {system["name"]: system for system in (await admin.get("/admin/systems")).json()["systems"]}
    return systems[name]["openTransfers"], systems[name]["stagedBytes"]


@pytest.fixture
async def another(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Toolbox]:
    """The toolbox of another process, which follows the changes."""
    monkeypatch.setattr(change_settings, "REFRESH_SECONDS", 0.02)
    tools, stop = world.toolbox(), asyncio.Event()
    following = asyncio.create_task(follow_settings(tools, stop))
    yield tools
    stop.set()
    await following


async def until(tools: Toolbox, max_staged_bytes: int | None) -> None:
    async with asyncio.timeout(20):
        while tools.settings.s3.max_staged_bytes != max_staged_bytes:
            await asyncio.sleep(0.005)


async def test_another_process_follows(admin: httpx.AsyncClient, another: Toolbox, world: World) -> None:
    await change(admin, {"s3.max_staged_bytes": 5, "systems.alps.enabled": False})
    await until(another, 5)
    assert not another.system("alps").settings.enabled
    works = another.setting_overrides.all

    async def away() -> Any:
        raise DatabaseUnavailable("The database does not answer.")

    another.setting_overrides.all = away  # type: ignore[method-assign]
    await change(admin, {"s3.max_staged_bytes": 6})
    await asyncio.sleep(0.1)
    assert another.settings.s3.max_staged_bytes == 5, "what held goes on holding"
    another.setting_overrides.all = works  # type: ignore[method-assign]
    await until(another, 6)
    await change(admin, unset=["s3.max_staged_bytes"])
    await until(another, None)


async def test_a_changed_life_of_objects_reaches_existing_buckets(
    admin: httpx.AsyncClient, alice: httpx.AsyncClient, world: World
) -> None:
    await refresh_settings(world.tools)
    await begin(alice, "a")
    (name,) = world.store._buckets
    before = await world.tools.buckets.fingerprint(name)
    assert before == world.store.bucket_rules_fingerprint()
    await change(admin, {"s3.bucket_lifecycle_configuration.days": 3})
    assert world.store.bucket_rules_fingerprint() != before
    assert await reconcile_buckets(world.tools) == 0
    assert await world.tools.buckets.fingerprint(name) == world.store.bucket_rules_fingerprint()


async def test_a_change_that_a_new_file_no_longer_allows_is_left_out(
    admin: httpx.AsyncClient, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await change(admin, {"systems.bora.enabled": False, "s3.max_staged_bytes": 5})
    without_bora = world.settings.model_copy(update={"systems": world.settings.systems[:1]})
    tools = replace(world.toolbox(), settings_in_force=SettingsInForce(without_bora))
    await refresh_settings(tools)
    assert tools.settings.s3.max_staged_bytes == 5
    assert "systems.bora.enabled" in caplog.text


async def test_orphans_are_listed_and_left_alone(admin: httpx.AsyncClient, alice: httpx.AsyncClient, world: World) -> None:
    for caller, status in ((alice, 403), (admin, 200)):
        assert (await caller.get("/admin/orphans")).status_code == status
    transfer_id = (await begin(alice, "a")).json()["transferId"]
    assert (await alice.delete(f"/transfers/{transfer_id}")).status_code == 200
    for _ in range(3):
        await world.work(2, seconds=3600)
    transfer = await world.get(transfer_id)
    assert transfer.cleaned
    # Somebody brings back what was cleaned up.
    await world.store.open_multipart(transfer.bucket, object_key(transfer_id))
    world.clock.advance(7200)
    report = (await admin.get("/admin/orphans")).json()
    assert [(one["kind"], one["transferId"], one["fixable"]) for one in report["findings"]] == [("multipart", transfer_id, True)]
    assert len(await world.store.list_multiparts(transfer.bucket)) == 1
    for days in ("-1", "nan", "1000", "x"):
        problem(await admin.get(f"/admin/orphans?days={days}"), 400)
