"""The ``stagecoach`` command: what moves files, and beside it what runs the service."""

from __future__ import annotations

from stagecoach import operate
from stagecoach.cli.main import app


def main() -> None:
    """Run the command line."""
    for command in operate.app.registered_commands:
        command.rich_help_panel = "Run the service"
    app.add_typer(operate.app)
    app(prog_name="stagecoach")


if __name__ == "__main__":
    main()
