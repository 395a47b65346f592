"""The status of systems at the door: what is known is told at once, whatever the systems do."""

from __future__ import annotations

import re

import httpx
from tests.fakes.world import World
from tests.unit.api.answers import problem

from stagecoach.core.errors import SystemUnavailable
from stagecoach.flows.probe_systems import probe_system
from stagecoach.flows.toolbox import Probed
from stagecoach.ports.compute import ProjectAccount
from stagecoach.settings.systems import ProbingSettings


def as_probed_by(world: World, username: str | None) -> None:
    """Probes act as this user."""
    system = world.tools.system("alps").settings
    probed = system.model_copy(update={"probing": ProbingSettings(ask_as=username)})
    world.tools.settings_in_force._systems["alps"] = probed


async def test_systems_before_and_after_they_were_looked_at(alice: httpx.AsyncClient, world: World) -> None:
    as_probed_by(world, "alice")
    for root in ("/scratch",):
        world.files.add_directory(root, "root", 0o777)
    alps, bora = (await alice.get("/status/systems")).json()["systems"]
    assert (alps["name"], bora["name"]) == ("alps", "bora")
    assert (alps["servicesHealth"], alps["lastHealthCheck"], alps["scheduler"]["version"]) == ([], None, "unknown")
    await probe_system(world.tools, "alps")
    alps, _ = (await alice.get("/status/systems")).json()["systems"]
    shown = [(one["serviceType"], one["path"], one["healthy"], one["message"]) for one in alps["servicesHealth"]]
    assert sorted(shown, key=str) == [
        ("filesystem", "/home/alice", True, "answers."),
        ("filesystem", "/scratch", True, "answers."),
        ("s3", None, True, "answers."),
        ("scheduler", None, True, "slurm 22.05.8 answers."),
    ]
    assert alps["lastHealthCheck"] == "2030-05-17T12:00:00Z"
    assert alps["scheduler"] == {
        "type": "slurm",
        "connectionMode": "ssh",
        "version": "22.05.8",
        "apiUrl": None,
        "apiVersion": None,
        "timeout": 20,
    }
    assert alps["fileSystems"] == [
        {"path": "/home", "dataType": "users", "defaultWorkDir": False},
        {"path": "/scratch", "dataType": "users", "defaultWorkDir": False},
    ]
    assert set(alps["probing"]["services"]) == {"filesystem", "s3", "scheduler"}
    assert alps["ssh"]["host"] == "login.example.org"
    operation = alps["dataOperation"]
    assert set(operation) == {"datatransfer_jobs_directives", "max_ops_file_size", "data_transfer"}
    assert operation["data_transfer"]["secretAccessKey"] == "**********"
    assert operation["data_transfer"]["multipart"]["max_part_size"] == 1024**3


async def test_one_failed_look_closes_nothing(alice: httpx.AsyncClient, world: World) -> None:
    as_probed_by(world, "alice")

    async def scheduler_is() -> tuple[bool, str]:
        await probe_system(world.tools, "alps")
        alps = (await alice.get("/status/systems")).json()["systems"][0]
        (health,) = [one for one in alps["servicesHealth"] if one["serviceType"] == "scheduler"]
        return health["healthy"], health["message"]

    assert await scheduler_is() == (True, "slurm 22.05.8 answers.")
    world.compute.trouble = SystemUnavailable("Unable to contact slurm controller.")
    down = "Unable to contact slurm controller."
    assert [await scheduler_is() for _ in range(3)] == [(True, down), (True, down), (False, down)]
    world.compute.trouble = None
    assert [(await scheduler_is())[0] for _ in range(2)] == [False, True]


async def test_a_file_system_that_is_away(world: World) -> None:
    as_probed_by(world, "alice")
    await probe_system(world.tools, "alps")
    known = world.tools.health["alps"]
    assert not known[Probed("filesystem", "/scratch")].is_healthy
    assert known[Probed("filesystem", "/home/alice")].is_healthy
    world.files.unavailable = True
    await probe_system(world.tools, "alps")
    assert not known[Probed("filesystem", "/home/alice")].probe.ok


async def test_without_a_user_nothing_that_needs_one_is_looked_at(world: World) -> None:
    await probe_system(world.tools, "alps")
    assert set(world.tools.health["alps"]) == {Probed("s3")}
    assert world.compute.calls == []


async def test_liveness_is_for_everybody(anonymous: httpx.AsyncClient, world: World) -> None:
    assert (await anonymous.get("/status/liveness/")).json() == {"healthcheckRuns": {}, "lastUpdate": 0}
    await probe_system(world.tools, "bora")
    assert (await anonymous.get("/status/liveness/")).json() == {
        "healthcheckRuns": {"bora": "2030-05-17T12:00:00Z"},
        "lastUpdate": int(world.clock.time.timestamp()),
    }


async def test_what_a_system_has(alice: httpx.AsyncClient, world: World) -> None:
    (node,) = (await alice.get("/status/alps/nodes")).json()["nodes"]
    assert (node["name"], node["cpus"], node["state"], node["idleCpus"]) == ("nid1", 64, ["IDLE", "DRAIN"], 60)
    partitions = (await alice.get("/status/alps/partitions")).json()["partitions"]
    assert partitions == [{"name": "debug", "cpus": 64, "totalNodes": 1, "partition": "UP"}]
    assert len((await alice.get("/status/alps/partitions", params={"show_hidden": "true"})).json()["partitions"]) == 2
    (reservation,) = (await alice.get("/status/alps/reservations")).json()["reservations"]
    assert (reservation["nodeList"], reservation["startTime"]) == ("nid1", 1_900_000_000)
    for what in ("nodes", "partitions", "reservations", "userinfo"):
        problem(await alice.get(f"/status/nope/{what}"), 404, "system_not_found")


async def test_who_one_is(alice: httpx.AsyncClient, world: World) -> None:
    person = (await alice.get("/status/alps/userinfo")).json()
    assert person["user"]["name"] == "alice"
    assert re.fullmatch(r"\d+", person["user"]["id"])
    assert person["groups"] == [{**person["group"], "default": True}]
    assert person["accounts"] == [{"name": "proj", "default": True}]
    world.compute.given_accounts = [ProjectAccount("a", False), ProjectAccount("b", True)]
    world.compute.trouble = SystemUnavailable("slurmdbd is down.")
    world.tools.asked.forget("alps", "alice")
    person = (await alice.get("/status/alps/userinfo")).json()
    assert (person["user"]["name"], person["accounts"]) == ("alice", None)
