"""Takes out of a text what must not be kept: tokens, signatures, passwords, keys. For logs, and nothing but logs.

What is known (the secrets of the settings) is taken out wherever it stands; what is not known, by the form it has.
Strangers write into the log (the paths that they ask for), so no form may take longer than a text is long: none tries
again from the middle of what it has just read in vain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[hidden]"
# A shorter one would take ordinary words out of ordinary sentences.
MIN_SECRET_LENGTH = 8

_NAMES = (
    r"pass(?:word|wd|phrase)|secret(?:[_-]?access)?(?:[_-]?key)?|client[_-]secret|signing[_-]secret|private[_-]key|api[_-]?key"
    r"|(?:access|refresh|id|session|device|personal|bearer)[_-]?token|token|device[_-]code|code[_-]verifier|x-amz-security-token"
)
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL),
        HIDDEN,
    ),
    # Headers whose whole value is secret.
    (
        re.compile(r"(?i)\b((?:set-)?cookie|(?:proxy-)?authorization)((?:\\?[\"'])?\s*[:=,]\s*b?(?:\\?[\"'])?)[^\n\"']+"),
        rf"\1\2{HIDDEN}",
    ),
    # Not the words of a sentence: a credential has a digit, a sign or a capital in it.
    (re.compile(r"\b((?i:bearer|basic))\s+(?=[a-z]*[A-Z0-9._~+/=-])[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {HIDDEN}"),
    # A JWT, or what is left of one.
    (re.compile(r"\beyJ[\w-]{6,}+(?:\.[\w-]++)*+"), HIDDEN),
    # Presigned URLs, versions 4 and 2, and what signs a request in its headers.
    (
        re.compile(
            r"(?i)\b(x-amz-signature|x-amz-credential|x-amz-security-token|awsaccesskeyid|signature|credential)(=|%3d)[^&\s\"'<>,;]+"
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=]+"), HIDDEN),
    # Of sessions, personal tokens, nodes, enrolments and invitations of this service.
    (re.compile(r"\bsc[stnei]_[A-Za-z0-9_-]{20,}+"), HIDDEN),
    (
        # After a colon and a space may stand a sentence, which begins with a short word.
        re.compile(
            rf"(?i)({_NAMES})"
            r"(\\?[\"']?\s*(?:=\s*b?(?:\\?[\"'])?|:\s*b?\\?[\"']|:\s*(?=[^\s\"',;&)}\]\\]{6})))(?!\s|\[hidden)[^\s\"',;&)}\]\\]+"
        ),
        rf"\1\2{HIDDEN}",
    ),
)


class Redaction:
    """Knows the secrets of this process and the forms of others'."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # A longer one may hold a shorter one.
        known = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def redacted(self, text: str) -> str:
        """The text without them."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for form, rest in _FORMS:
            text = form.sub(rest, text)
        return text
