"""Nothing that must not be kept is in a log line, wherever in the record it stands; and the rest is still there."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Iterator

import pytest

from stagecoach.core.redaction import HIDDEN, Redaction
from stagecoach.logs import JsonLine, TextLine, secrets_of
from stagecoach.settings import settings_from

SECRET = "Qm9ndXMtc2VjcmV0-7f3a"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
V4 = (
    "https://s3.example.org/b/k?partNumber=3&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20300101"
    f"&X-Amz-Date=20300101T000000Z&X-Amz-Signature={SECRET}&X-Amz-SignedHeaders=host"
)
V2 = f"https://s3.example.org/b/k?AWSAccessKeyId=AKIDEXAMPLE&Signature={SECRET}%3D&Expires=1900000000"
# What is written, what must not be in the line, and what must still be.
WRITTEN: list[tuple[str, str, str]] = [
    (f"PUT {V4} failed: 503", SECRET, "partNumber=3"),
    (f"PUT {V4} failed: 503", "AKIDEXAMPLE", "failed: 503"),
    (f"GET {V2}", SECRET, "Expires=1900000000"),
    (f"GET {V2}", "AKIDEXAMPLE", "https://s3.example.org/b/k"),
    (f"Authorization: Bearer {JWT}", JWT, "Authorization: "),
    (f"headers {{'authorization': 'Bearer {JWT}', 'accept': 'x/y'}}", JWT, "x/y"),
    (f"headers [(b'authorization', b'Bearer {JWT}'), (b'accept', b'x/y')]", JWT, "x/y"),
    (f"a token of {JWT} came", JWT, " came"),
    (f"bearer {SECRET}", SECRET, "bearer"),
    (
        f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/2030, SignedHeaders=host, Signature={SECRET}",
        SECRET,
        "SignedHeaders=host",
    ),
    (f"Cookie: session={SECRET}; theme=dark", SECRET, "Cookie"),
    (f"postgresql+psycopg://stagecoach:{SECRET}@db:5432/stagecoach", SECRET, "@db:5432/stagecoach"),
    (f"password={SECRET} user=alice", SECRET, "user=alice"),
    (f'{{"password": "{SECRET}", "user": "alice"}}', SECRET, '"user": "alice"'),
    (f"S3_SECRET_KEY={SECRET}", SECRET, "S3_SECRET_KEY="),
    (f"secret_access_key: {SECRET}", SECRET, "secret_access_key"),
    (f"client_secret={SECRET}&grant_type=x", SECRET, "grant_type=x"),
    (f"whsec_{'QUJD' * 8}", "QUJD" * 8, ""),
    (f"DELETE /tokens/sct_{'aB3_-' * 8}xyz HTTP/1.1", "aB3_-" * 8, "HTTP/1.1"),
    (f"scs_{'aB3_-' * 8}xyz", "aB3_-" * 8, ""),
    (f'{{"currentPassword": "{SECRET}", "user": "alice"}}', SECRET, '"user": "alice"'),
    (
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n{SECRET}\n-----END OPENSSH PRIVATE KEY----- after",
        SECRET,
        "after",
    ),
]
PLAIN = [
    "transfer 01jvexample: the token has expired; get a new one",
    "settings: s3.secret_access_key: the secret file /run/x cannot be read (FileNotFoundError).",
    "GET https://s3.example.org/bucket/key?uploads answered 404",
    "Basic things are simple; a bearer is who bears.",
    "database: OperationalError: connection to db:5432 refused",
    "/home/alice/passwords and signatures/key: No such file or directory",
]


@pytest.fixture(params=[TextLine, JsonLine])
def lines(request: pytest.FixtureRequest) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger that writes as the service does, and what it wrote."""
    stream, logger = io.StringIO(), logging.getLogger(f"of-this-test-{request.param.__name__}")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param(Redaction(["a known secret"])))
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)


@pytest.mark.parametrize(("text", "secret", "rest"), WRITTEN)
def test_no_secret_gets_into_a_line(lines: tuple[logging.Logger, io.StringIO], text: str, secret: str, rest: str) -> None:
    logger, stream = lines
    logger.warning(text.replace("%", "%%"), *())
    logger.warning("argument: %s", text)
    logger.warning("in a list: %s", [text])
    logger.warning("in a mapping: %(it)s", {"it": text})
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("in a stack")
    written = stream.getvalue()
    assert secret not in written
    assert HIDDEN in written
    assert "ValueError" in written
    assert written.count(json.dumps(rest)[1:-1]) >= 1 or written.count(rest) >= 5


def test_nobody_writes_a_line_of_his_own_into_the_log(lines: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = lines
    forged = "2030-05-17 12:00:00,000 INFO    stagecoach.api: carol logged in"
    for end in ("\n", "\r", "\r\n", "\n\x1b[1A\x1b[2K"):
        logger.warning("GET /transfers/%s: not found", f"x{end}{forged}")
        try:
            raise OSError(f"/home/alice/x{end}{forged}")
        except OSError:
            logger.exception("it failed")
    written = stream.getvalue()
    assert forged in written
    assert not [line for line in re.split("[\r\n]", written) if line.startswith((forged, "\x1b"))]


@pytest.mark.parametrize("text", PLAIN)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert Redaction(["a known secret"]).redacted(text) == text


@pytest.mark.parametrize(
    "piece", ["a-", "eyJ-", "eyJhbGciOi.", "x-amz-signature", "token-", "sct_", "a://b:", "cookie: ", "-----BEGIN A", 'token" ']
)
def test_no_words_of_a_stranger_keep_the_log_busy(piece: str) -> None:
    """The path of a request may be 64 KiB long, and whoever looks through it must not begin anew at each of its words."""
    text = (piece * 2**16)[: 2**16]
    began = time.process_time()
    Redaction(["a known secret"]).redacted(text)
    assert time.process_time() - began < 2


def test_a_known_secret_is_hidden_wherever_it_stands_and_a_short_one_is_no_secret() -> None:
    redaction = Redaction(["correct horse", "correct horse battery", "key", ""])
    assert redaction.redacted("xcorrect horse batteryx correct horse; a key") == f"x{HIDDEN}x {HIDDEN}; a key"


def test_every_secret_of_the_settings_is_known() -> None:
    settings = settings_from(
        {
            "database": {"url": "postgresql+psycopg://stagecoach:p%40ss-w0rd-1@db/stagecoach"},
            "s3": {"access_key_id": "the-key-id-1", "secret_access_key": "very-secret-1"},
            "webhooks": {"signing_secret": "whsec_" + "c2VjcmV0" * 4},
        }
    )
    assert {"p%40ss-w0rd-1", "p@ss-w0rd-1", "the-key-id-1", "very-secret-1", "whsec_" + "c2VjcmV0" * 4} <= set(
        secrets_of(settings)
    )
    line = Redaction(secrets_of(settings)).redacted("'p@ss-w0rd-1' very-secret-1 stagecoach at db")
    assert line == f"'{HIDDEN}' {HIDDEN} stagecoach at db"
