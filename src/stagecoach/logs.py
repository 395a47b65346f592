"""How log lines look, what is never in one, and which libraries must not write theirs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from textwrap import indent
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from stagecoach.core.redaction import Redaction
from stagecoach.settings import LogSettings, Settings

# These log whole URLs at INFO, signatures included, or (the last one, at DEBUG) every value that goes to the database.
_TALKATIVE = ("httpx", "httpcore", "aiobotocore", "botocore", "asyncssh", "alembic", "aiosqlite")


# Names of files and paths of requests may hold line breaks: nobody writes lines of his own into the log, or steers a terminal.
_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}


class TextLine(logging.Formatter):
    """A line for people, its stack below it, indented; without secrets."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        """All of it: message, arguments, stack."""
        return self._redaction.redacted(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line, whatever stands in it."""
        return super().formatMessage(record).translate(_CONTROLS)

    def formatException(self, ei: Any) -> str:
        """Told apart from lines of the log, which begin at the margin."""
        return indent(super().formatException(ei), "    ", lambda _line: True)


class JsonLine(logging.Formatter):
    """One JSON object a line, times in UTC; without secrets."""

    def __init__(self, redaction: Redaction) -> None:
        super().__init__()
        self._redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redaction.redacted(record.getMessage()),
        }
        if record.exc_info:
            line["stack"] = self._redaction.redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def start_logging(settings: LogSettings, secrets: Iterable[str] = ()) -> None:
    """Everything to standard error, at the level and in the form of the settings; ``secrets`` never."""
    redaction = Redaction(secrets)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLine(redaction) if settings.json_lines else TextLine(redaction))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def secrets_of(settings: Settings) -> Iterator[str]:
    """Every secret that the settings hold, and of a URL its password alone as well."""
    yield from _secrets_of(settings)


def _secrets_of(section: object) -> Iterator[str]:
    if isinstance(section, SecretStr):
        value = section.get_secret_value()
        if "://" in value:
            # The rest of a database's address is no secret, and helps whoever reads the log.
            password = urlsplit(value).password or ""
            yield from (password, unquote(password))
        else:
            yield value
    elif isinstance(section, BaseModel):
        for name in type(section).model_fields:
            yield from _secrets_of(getattr(section, name))
    elif isinstance(section, tuple | list):
        for item in section:
            yield from _secrets_of(item)
