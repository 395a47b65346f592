"""The command line's table of commands."""

from __future__ import annotations

import typer

from stagecoach.cli import agent, nodes, transfers
from stagecoach.cli.cp import cp
from stagecoach.cli.login import login
from stagecoach.cli.logout import logout
from stagecoach.cli.ls import ls
from stagecoach.cli.running import EXIT_CODES

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Move very large files in and out of supercomputers.",
    epilog=f"{EXIT_CODES} STAGECOACH_URL and STAGECOACH_TOKEN go before what login has kept.",
)
PANEL = "Move files"
app.command(rich_help_panel=PANEL, epilog=EXIT_CODES)(login)
app.command(rich_help_panel=PANEL, epilog=EXIT_CODES)(logout)
app.command(rich_help_panel=PANEL, epilog=EXIT_CODES)(cp)
app.command(rich_help_panel=PANEL, epilog=EXIT_CODES)(ls)
app.add_typer(agent.app, name="agent", rich_help_panel="Be a data transfer node", epilog=EXIT_CODES)
app.add_typer(transfers.app, name="transfers", rich_help_panel=PANEL, epilog=EXIT_CODES)
app.add_typer(nodes.app, name="nodes", rich_help_panel=PANEL, epilog=EXIT_CODES)
app.add_typer(nodes.invitations, name="invitations", rich_help_panel=PANEL, epilog=EXIT_CODES)
