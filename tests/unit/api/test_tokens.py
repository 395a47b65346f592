"""A token is believed when everything about it holds; else the answer is 401 with one body, and repeats none of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from joserfc.jwk import RSAKey
from tests.unit.api.answers import problem
from tests.unit.api.conftest import AUDIENCE, ISSUER, Issuer, encoded, new_key

from stagecoach.api import issuer_keys
from stagecoach.api.tokens import TokenChecker
from stagecoach.core.errors import NotAuthenticated, SettingsError, Unavailable
from stagecoach.settings import AuthSettings, IssuerSettings


async def ask(client: httpx.AsyncClient, authorization: str | bytes | None) -> httpx.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    return await client.get("/transfers", headers=headers)  # type: ignore[arg-type]


def require_refused(answer: httpx.Response, token: str) -> None:
    body = problem(answer, 401, "not_authenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert body["user"] is None
    for piece in token.split("."):
        assert len(piece) < 8 or piece not in answer.text


async def test_a_good_token_is_believed(anonymous: httpx.AsyncClient, issuer: Issuer) -> None:
    assert (await ask(anonymous, f"Bearer {issuer.token()}")).status_code == 200
    assert (await ask(anonymous, f"bearer {issuer.token()}")).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YWxpY2U6eA==",
        "Token abc",
        "Bearer garbage",
        "Bearer a.b",
        "Bearer a.b.c",
        "Bearer ..",
        "Bearer ....",
        "Bearer a.b.c.d.e",
        "Bearer " + "x" * 20_000,
        "Bearer \xe9\xff",
        "Bearer null",
        "Bearer {}",
    ],
)
async def test_what_is_no_token_is_refused(anonymous: httpx.AsyncClient, authorization: str | None) -> None:
    raw = None if authorization is None else authorization.encode("latin-1")
    require_refused(await ask(anonymous, raw), "")


def wrong_tokens(issuer: Issuer) -> dict[str, str]:
    good = issuer.token()
    head, body, signature = good.split(".")
    stranger = new_key()
    public = issuer.key.as_dict(private=False)
    pem = issuer.key.as_pem(private=False)
    wrong: dict[str, str] = {
        "no signature": f"{head}.{body}.",
        "truncated": good[:-5],
        "head only": head,
        "other signature": f"{head}.{body}.{encoded(b'x' * 64)}",
        "other payload": f"{head}.{encoded(issuer.claims(preferred_username='bob'))}.{signature}",
        "expired": issuer.token(exp=int(issuer.time) - 31),
        "not yet valid": issuer.token(nbf=int(issuer.time) + 31),
        "never expires": issuer.token(exp=None),
        "exp null": issuer.signed(
            {"alg": "ES256", "kid": issuer.key.kid}, json.dumps({**issuer.claims(), "exp": None}), issuer.key
        ),
        "another issuer": issuer.token(iss="https://evil.example.org"),
        "issuer as list": issuer.token(iss=[ISSUER]),
        "no issuer": issuer.token(iss=None),
        "an ID token": issuer.token(typ="ID", nonce="n"),
        "an ID token of another provider": issuer.token(at_hash="x", nonce="n"),
        "a refresh token": issuer.token(typ="Refresh"),
        "another audience": issuer.token(aud="somebody-else"),
        "no audience": issuer.token(aud=None),
        "audience list": issuer.token(aud=["a", "b"]),
        "audience number": issuer.token(aud=7),
        "unknown kid": issuer.token({"kid": "nobody"}),
        "another key, its kid": issuer.token(key=stranger),
        "another key, our kid": issuer.token({"kid": issuer.key.kid}, key=stranger),
        "its own key in the header": issuer.token({"jwk": stranger.as_dict(private=False)}, key=stranger),
        "a key's address in the header": issuer.token({"jku": "https://evil.example.org", "kid": "x"}, key=stranger),
        "crit": issuer.token({"crit": ["x"], "x": 1})
        if False
        else f"{encoded({'alg': 'ES256', 'crit': ['x']})}.{body}.{signature}",
    }
    for algorithm in ("none", "None", "NONE", "nOnE", "", None, 5, ["ES256"]):
        header = encoded({"alg": algorithm, "kid": issuer.key.kid})
        wrong[f"alg {algorithm}"] = f"{header}.{body}."
        wrong[f"alg {algorithm}, signed"] = f"{header}.{body}.{signature}"
    for name, secret in (("pem", pem), ("jwk", json.dumps(public).encode()), ("x", str(public["x"]).encode()), ("empty", b"")):
        header = encoded({"alg": "HS256", "kid": issuer.key.kid})
        mac = hmac.new(secret, f"{header}.{body}".encode(), hashlib.sha256).digest()
        wrong[f"HS256 with {name}"] = f"{header}.{body}.{encoded(mac)}"
    for name, payload in (
        ("list", "[]"),
        ("number", "1"),
        ("null", "null"),
        ("text", '"alice"'),
        ("no json", "{"),
        ("binary", "\xff"),
    ):
        wrong[f"payload {name}"] = issuer.signed({"alg": "ES256", "kid": issuer.key.kid}, payload, issuer.key)
    for value in ("abc", True, [1], {}, -1, 0, 1e400, "1900000300", None):
        text = json.dumps({**issuer.claims(), "exp": value})
        wrong[f"exp {value!r}"] = issuer.signed({"alg": "ES256", "kid": issuer.key.kid}, text, issuer.key)
    del wrong["exp inf"]
    for value in ("abc", [1], {}):
        text = json.dumps({**issuer.claims(), "nbf": value})
        wrong[f"nbf {value!r}"] = issuer.signed({"alg": "ES256", "kid": issuer.key.kid}, text, issuer.key)
    return wrong


async def test_every_wrong_token_is_refused_with_the_same_body(
    anonymous: httpx.AsyncClient, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name, token in wrong_tokens(issuer).items():
        answer = await ask(anonymous, f"Bearer {token}")
        assert answer.status_code == 401, (name, answer.text)
        require_refused(answer, token)
        body = token.split(".")[1] if "." in token else token
        assert len(body) < 8 or body not in caplog.text, name


HOSTILE: list[Any] = ["../x", "..", ".", "", "a/b", "/", "a\nb", "a\0", " ", "alice bob", "\t", "x" * 65, "\x7f", "\ud800"]
HOSTILE += [None, 5, True, ["alice"], {"a": 1}, "alice\n", "\nalice"]
# What nobody sees, and what turns the line around.
HOSTILE += ["ali\u200bce", "\u202ealice", "alice\x85", "alice\xa0", "\u2028alice", "\ufeffalice"]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_claim_that_names_no_user_is_refused(anonymous: httpx.AsyncClient, issuer: Issuer, name: Any) -> None:
    token = issuer.token(preferred_username=name)
    answer = await ask(anonymous, f"Bearer {token}")
    require_refused(answer, token)


@pytest.mark.parametrize("name", ["alice", "a", "user@realm", "é", "-x", "用户", "x" * 64, "a.b_c"])
async def test_a_claim_that_names_a_user_is_believed(anonymous: httpx.AsyncClient, issuer: Issuer, name: str) -> None:
    authorization = f"Bearer {issuer.token(preferred_username=name)}"
    assert (await ask(anonymous, authorization)).status_code == 200
    # A header could not carry every name.
    refused = problem(await anonymous.get("/transfers/none", headers={"Authorization": authorization}), 404)
    assert refused["user"] == name


async def test_times_are_tolerated_by_the_skew(anonymous: httpx.AsyncClient, issuer: Issuer) -> None:
    for changes in ({"exp": int(issuer.time) - 29}, {"nbf": int(issuer.time) + 29}):
        assert (await ask(anonymous, f"Bearer {issuer.token(**changes)}")).status_code == 200


async def test_an_audience_among_several_is_believed(anonymous: httpx.AsyncClient, issuer: Issuer) -> None:
    assert (await ask(anonymous, f"Bearer {issuer.token(aud=['other', AUDIENCE])}")).status_code == 200


@pytest.mark.parametrize(
    ("roles", "is_admin"),
    [
        (["stagecoach-admin"], True),
        ("stagecoach-admin", True),
        (None, False),
        ([], False),
        ("x stagecoach-admin", False),
        (["Stagecoach-Admin"], False),
        ({"stagecoach-admin": True}, False),
        ([["stagecoach-admin"]], False),
        (True, False),
    ],
)
async def test_the_administrators_role_is_read_exactly(issuer: Issuer, roles: Any, is_admin: bool) -> None:
    checker = TokenChecker(AuthSettings(issuers=(IssuerSettings(jwks=str(issuer.jwks_file)),)), lambda: issuer.time)
    assert (await checker.believe(issuer.token(roles=roles))).is_admin is is_admin


@pytest.mark.parametrize(("named", "is_admin"), [({}, False), ({"admin_role": "stagecoach-admin"}, True)])
async def test_a_partners_provider_makes_administrators_only_where_the_centre_says_so(
    issuer: Issuer, named: dict[str, str], is_admin: bool
) -> None:
    partner = IssuerSettings(issuer=ISSUER, jwks=str(issuer.jwks_file), user_names="mapped", user_map={"a@p": "alice"}, **named)
    believed = await TokenChecker(AuthSettings(issuers=(partner,)), lambda: issuer.time).believe(
        issuer.token(preferred_username="a@p", roles=["stagecoach-admin"])
    )
    assert (believed.username, believed.is_admin) == ("alice", is_admin)


async def test_an_rsa_issuer_is_believed_too(anonymous: httpx.AsyncClient, issuer: Issuer) -> None:
    key = RSAKey.generate_key(2048, private=True)
    key.ensure_kid()
    issuer.publish(issuer.key, key)
    assert (await ask(anonymous, f"Bearer {issuer.token(key=key)}")).status_code == 200
    assert (await ask(anonymous, f"Bearer {issuer.token()}")).status_code == 200


async def test_a_rotated_key_file_is_picked_up_and_the_old_key_falls(anonymous: httpx.AsyncClient, issuer: Issuer) -> None:
    old = issuer.key
    assert (await ask(anonymous, f"Bearer {issuer.token()}")).status_code == 200
    issuer.key = new_key()
    issuer.publish(issuer.key)
    issuer.time += 31
    assert (await ask(anonymous, f"Bearer {issuer.token()}")).status_code == 200
    require_refused(await ask(anonymous, f"Bearer {issuer.token(key=old)}"), "")


async def test_a_stream_of_forged_tokens_is_not_a_stream_of_readings(
    application: FastAPI, anonymous: httpx.AsyncClient, issuer: Issuer
) -> None:
    keys = application.state.tokens._keys[0][1]
    readings, read = [], keys._fetch

    async def counted() -> Any:
        readings.append(issuer.time)
        return await read()

    keys._fetch = counted
    forged = issuer.token(key=new_key())
    for _ in range(100):
        issuer.time += 1
        require_refused(await ask(anonymous, f"Bearer {forged}"), "")
    assert 1 <= len(readings) <= 5


async def test_keys_that_cannot_be_read_again_stay_good(anonymous: httpx.AsyncClient, issuer: Issuer) -> None:
    assert (await ask(anonymous, f"Bearer {issuer.token()}")).status_code == 200
    issuer.jwks_file.write_text("{half")
    issuer.time += 4000
    assert (await ask(anonymous, f"Bearer {issuer.token()}")).status_code == 200
    require_refused(await ask(anonymous, f"Bearer {issuer.token(key=new_key())}"), "")


@pytest.mark.parametrize("trouble", [TimeoutError(), httpx.InvalidURL("no port"), httpx.ConnectError("refused")])
@pytest.mark.parametrize("trouble_at", ["metadata", "keys"])
async def test_an_issuer_that_never_ends_its_answer_or_has_a_wrong_address_is_one_that_is_down(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, trouble: Exception, trouble_at: str
) -> None:
    failing: set[str] = set()

    async def get(url: str) -> Any:
        what = "metadata" if url.endswith(issuer_keys.METADATA_PATH) else "keys"
        if what in failing:
            raise trouble
        if what == "metadata":
            return {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
        return json.loads(issuer.jwks_file.read_text())

    monkeypatch.setattr(issuer_keys, "_get", get)
    checker = TokenChecker(AuthSettings(issuers=(IssuerSettings(issuer=ISSUER, audience=AUDIENCE),)), lambda: issuer.time)
    assert (await checker.believe(issuer.token())).username == "alice"
    failing.add(trouble_at)
    issuer.time += 4000
    assert (await checker.believe(issuer.token())).username == "alice"
    with pytest.raises(Unavailable, match="does not answer"):
        await checker.read_keys(checker._keys[0][0])


async def test_an_issuer_that_hangs_holds_up_nobody_whose_key_is_known(
    application: FastAPI, anonymous: httpx.AsyncClient, issuer: Issuer
) -> None:
    assert (await ask(anonymous, f"Bearer {issuer.token()}")).status_code == 200
    keys = application.state.tokens._keys[0][1]
    asked, answers = asyncio.Event(), asyncio.Event()

    async def hanging() -> Any:
        asked.set()
        await answers.wait()
        raise Unavailable("too late")

    keys._fetch = hanging
    issuer.time += 4000
    first = asyncio.create_task(ask(anonymous, f"Bearer {issuer.token()}"))
    await asked.wait()
    async with asyncio.timeout(5):
        assert (await ask(anonymous, f"Bearer {issuer.token()}")).status_code == 200
    assert not first.done()
    answers.set()
    assert (await first).status_code == 200


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"keys": 5}', '{"keys": [{}]}', '{"keys": [{"kty": "x"}]}', "null"])
async def test_a_key_file_that_holds_no_keys_is_the_centres_mistake(issuer: Issuer, content: str) -> None:
    issuer.jwks_file.write_text(content)
    checker = TokenChecker(AuthSettings(issuers=(IssuerSettings(jwks=str(issuer.jwks_file)),)), lambda: issuer.time)
    with pytest.raises((Unavailable, NotAuthenticated)) as refused:
        await checker.believe(issuer.token())
    assert str(issuer.jwks_file) not in str(refused.value)
    if content not in {"{}", '{"keys": []}'}:
        with pytest.raises(SettingsError, match=r"auth\.issuers\.jwks"):
            await checker.read_keys(checker._keys[0][0])


async def test_keys_that_are_not_there_are_not_looked_for_at_every_request(issuer: Issuer, tmp_path: Path) -> None:
    later = tmp_path / "later.json"
    checker = TokenChecker(AuthSettings(issuers=(IssuerSettings(jwks=str(later)),)), lambda: issuer.time)
    with pytest.raises(Unavailable):
        await checker.believe(issuer.token())
    later.write_bytes(issuer.jwks_file.read_bytes())
    with pytest.raises(Unavailable):
        await checker.believe(issuer.token())
    issuer.time += 31
    assert (await checker.believe(issuer.token())).username


async def test_a_token_in_the_query_is_none(anonymous: httpx.AsyncClient, issuer: Issuer) -> None:
    problem(await anonymous.get(f"/transfers?access_token={issuer.token()}"), 401)


async def test_padding_and_line_breaks_make_no_second_form(anonymous: httpx.AsyncClient, issuer: Issuer) -> None:
    head, body, signature = issuer.token().split(".")
    padded = base64.urlsafe_b64encode(base64.urlsafe_b64decode(body + "==") + b" ").decode()
    require_refused(await ask(anonymous, f"Bearer {head}.{padded}.{signature}"), "")
