"""``stagecoach nodes …`` and ``stagecoach invitations …``: data transfer nodes and who may send to them."""

from __future__ import annotations

from collections.abc import Callable

import typer

from stagecoach.cli.nodes import grants
from stagecoach.cli.nodes.change import rename, revoke
from stagecoach.cli.nodes.check import check
from stagecoach.cli.nodes.commands import commands
from stagecoach.cli.nodes.invitations import invite, redeem
from stagecoach.cli.nodes.listing import listing
from stagecoach.cli.nodes.register import register
from stagecoach.cli.nodes.sends import send, sends, watch
from stagecoach.cli.nodes.show import show
from stagecoach.cli.running import EXIT_CODES

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Register and look after your nodes, and let others send to them."
)
VERBS: dict[str, Callable[..., None]] = {
    "list": listing,
    "register": register,
    "show": show,
    "rename": rename,
    "revoke": revoke,
    "commands": commands,
    "check": check,
    "send": send,
    "sends": sends,
    "watch": watch,
    "invite": invite,
}
for name, verb in VERBS.items():
    app.command(name, epilog=EXIT_CODES)(verb)
app.add_typer(grants.app, name="grants", epilog=EXIT_CODES)

invitations = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Redeem what others invited you to.")


@invitations.callback()
def _verbs_follow() -> None:
    """Redeem what others invited you to."""


invitations.command("redeem", epilog=EXIT_CODES)(redeem)
