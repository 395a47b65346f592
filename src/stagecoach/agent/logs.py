"""The agent's log: lines for people on standard error, without secrets. Presigned URLs are never said in the first place."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from stagecoach.core.redaction import Redaction

# They log whole URLs.
_TALKATIVE = ("httpx", "httpcore")
_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}


class _Line(logging.Formatter):
    def __init__(self, redaction: Redaction) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self._redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        return self._redaction.redacted(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        # One line, whatever the service answered; a stack stands below it.
        return super().formatMessage(record).translate(_CONTROLS)


def start_logging(secrets: Iterable[str]) -> None:
    """``secrets`` are never in it, nor what looks like one."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line(Redaction(secrets)))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
