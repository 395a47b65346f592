"""The check of a system says which credential a login shows, whether it opens the door, and what to look at when not."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.world import World

from stagecoach.core.errors import PermissionRefused, StagecoachError, SystemUnavailable
from stagecoach.flows.check_systems import Finding, check_everything
from stagecoach.settings import SystemSettings


class FakeLogin:
    def __init__(self) -> None:
        self.no_credential: StagecoachError | None = None
        self.refused: StagecoachError | None = None

    async def show_credential(self, username: str) -> str:
        if self.no_credential is not None:
            raise self.no_credential
        return f"a certificate for {username}, valid until tomorrow"

    async def try_login(self, username: str) -> str:
        if self.refused is not None:
            raise self.refused
        return f"logged in as {username}, with a certificate"


CREDENTIALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "key": ({"key_file": "/keys/{user}"}, "belongs in /keys/alice", "public half of /keys/alice must be among"),
    "authority": (
        {"certificate_authority": {"key_file": "/ca", "principal": "hpc-{user}"}},
        "/ca is the authority's private key",
        "TrustedUserCAKeys, and alice must take the principal hpc-alice",
    ),
    "signing service": (
        {"certificate_authority": {"signing_service_url": "https://signer.example.org/v1"}},
        "does https://signer.example.org/v1 answer",
        "TrustedUserCAKeys, and alice must take the principal alice",
    ),
    "service account": (
        {"key_file": "/keys/{user}", "service_account": {"username": "xfer"}},
        "belongs in /keys/xfer",
        "authorized keys of xfer, and xfer must be allowed to run there: sudo -n -u alice -- id -u",
    ),
}


def with_login(world: World, credentials: dict[str, Any]) -> FakeLogin:
    login, system = FakeLogin(), world.tools.systems["alps"]
    settings = system.settings.model_dump(mode="json")
    settings["ssh"]["credentials"] = credentials
    object.__setattr__(system, "settings", SystemSettings.model_validate(settings))
    object.__setattr__(system, "login", login)
    return login


async def findings(world: World) -> dict[str, Finding]:
    return {finding.what: finding async for finding in check_everything(world.tools, "alice", {})}


@pytest.mark.parametrize("kind", CREDENTIALS)
async def test_a_login_that_works_says_with_what(world: World, kind: str) -> None:
    with_login(world, CREDENTIALS[kind][0])
    found = await findings(world)
    assert found["alps credential"] == Finding(True, "alps credential", "a certificate for alice, valid until tomorrow.")
    assert found["alps login"].ok
    assert found["alps login"].message == "works as alice (home /home/alice): logged in as alice, with a certificate."


@pytest.mark.parametrize("kind", CREDENTIALS)
async def test_a_credential_that_is_not_there_says_where_to_look_and_nothing_else_is_tried(world: World, kind: str) -> None:
    credentials, advice, _ = CREDENTIALS[kind]
    with_login(world, credentials).no_credential = SystemUnavailable("Nobody signs.")
    found = await findings(world)
    assert not found["alps credential"].ok
    assert found["alps credential"].message.startswith("Nobody signs. See systems.alps.ssh.credentials")
    assert advice in found["alps credential"].message
    assert "alps login" not in found
    # The other system is tried all the same.
    assert found["bora login"].ok


@pytest.mark.parametrize("kind", CREDENTIALS)
async def test_a_login_that_is_refused_says_what_the_site_must_have_set(world: World, kind: str) -> None:
    credentials, _, advice = CREDENTIALS[kind]
    with_login(world, credentials).refused = PermissionRefused("alps refused the login of alice: its certificate expired.")
    found = await findings(world)
    assert not found["alps login"].ok
    assert "its certificate expired. See systems.alps.ssh (login.example.org:22): " in found["alps login"].message
    assert advice in found["alps login"].message
    assert "alps scheduler" not in found
