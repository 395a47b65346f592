"""How log lines look, and which libraries must not write theirs."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from stagecoach.settings import LogSettings

# These log whole URLs at INFO, signatures included.
_TALKATIVE = ("httpx", "httpcore", "aiobotocore", "botocore", "asyncssh", "alembic")


class JsonLine(logging.Formatter):
    """One JSON object a line, times in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def start_logging(settings: LogSettings) -> None:
    """Everything to standard error, at the level and in the form of the settings."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonLine() if settings.json_lines else text)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
