"""What rclone's sentences mean: a stable code, advice for a scientist, and whether trying again can help. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a copy failed. ``message`` holds no secret if the sentence that it was made of held none."""

    code: str
    message: str
    retryable: bool


# The first that fits is it.
_MEANINGS: tuple[tuple[re.Pattern[str], str, str, bool], ...] = tuple(
    (re.compile(form, re.IGNORECASE), code, advice, retryable)
    for form, code, advice, retryable in (
        ("no space left|disk quota", "no_space", "The receiver's disk is full: free some space there.", False),
        ("x509|certificate", "certificate_wrong", "The receiver shows another certificate than was announced.", False),
        (
            "StatusCode: 403|AccessDenied|SignatureDoesNotMatch|InvalidAccessKeyId|Forbidden|RequestTimeTooSkewed",
            "key_refused",
            "The receiver does not accept the key of this transfer: it was closed, or a clock is wrong.",
            False,
        ),
        ("source file is being updated|size changed|modified", "source_changed", "The source changed while it was sent.", False),
        ("permission denied", "source_unreadable", "The agent may not read the source.", False),
        ("object not found|directory not found|no such file", "source_missing", "The source is not there.", False),
        ("no such host|server misbehaving", "dns_failed", "The receiver's name is unknown here.", True),
        ("connection refused", "port_closed", "Nothing listens at the receiver's address.", True),
        (
            "i/o timeout|deadline exceeded|no route to host|network is unreachable|TLS handshake timeout",
            "receiver_silent",
            "The receiver does not answer.",
            True,
        ),
        (
            "NoSuchUpload|connection reset|broken pipe|EOF|StatusCode: 503|SlowDown|closed network connection",
            "receiver_interrupted",
            "The connection to the receiver broke, or it was started again.",
            True,
        ),
        (
            # It does not say more than this to anybody.
            "StatusCode: 5",
            "receiver_failed",
            "The receiver cannot store it: its disk may be full or closed to it, which its agent's log tells.",
            True,
        ),
    )
)


def meaning_of(sentence: str) -> Trouble:
    """Of what rclone said, already without secrets."""
    for form, code, advice, retryable in _MEANINGS:
        if form.search(sentence):
            return Trouble(code, f"{advice} rclone says: {sentence}", retryable)
    return Trouble("direct_failed", f"rclone says: {sentence}", True)
