"""``stagecoach transfers …``: what has been begun, one verb a file."""

from __future__ import annotations

from collections.abc import Callable

import typer

from stagecoach.cli.running import EXIT_CODES
from stagecoach.cli.transfers.cancel import cancel
from stagecoach.cli.transfers.limit import limit
from stagecoach.cli.transfers.listing import listing
from stagecoach.cli.transfers.resume import resume
from stagecoach.cli.transfers.retry import retry
from stagecoach.cli.transfers.share import share
from stagecoach.cli.transfers.show import show
from stagecoach.cli.transfers.stop import stop
from stagecoach.cli.transfers.watch import watch

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="List, show, watch, stop, resume, limit, share … transfers.",
)
VERBS: dict[str, Callable[..., None]] = {
    "list": listing,
    "show": show,
    "watch": watch,
    "cancel": cancel,
    "resume": resume,
    "retry": retry,
    "stop": stop,
    "limit": limit,
    "share": share,
}
for name, verb in VERBS.items():
    app.command(name, epilog=EXIT_CODES)(verb)
