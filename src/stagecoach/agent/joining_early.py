"""Joins parts while others still arrive, so that little is left to be done when all are there. Blocking: for a thread."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from stagecoach.agent.joining import join_compared
from stagecoach.mover.stagecoach_mover import DIRECTORY_FLAGS, Failed, Handle

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


def join_as_they_come(folder: Path, stopped: threading.Event, look_seconds: float = _LOOK_SECONDS) -> None:
    """Until ``stopped``. What goes wrong here goes wrong again when the folder is placed, which says so."""
    try:
        opened = Handle(os.open(folder, DIRECTORY_FLAGS))
        while not stopped.wait(look_seconds):
            join_compared(opened, stopped.is_set)
    except Failed as failed:
        _log.warning("What has arrived in parts is not joined before all is there: %s", failed.message)
    except OSError as error:
        _log.warning("What has arrived in parts is not joined before all is there: %s", error.strerror)
