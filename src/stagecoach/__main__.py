"""The ``stagecoach`` command."""

from __future__ import annotations

from stagecoach.operate import app


def main() -> None:
    """Run the command line."""
    app(prog_name="stagecoach")


if __name__ == "__main__":
    main()
