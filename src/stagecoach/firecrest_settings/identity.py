"""Whom FirecREST believes, as our issuers of tokens."""

from __future__ import annotations

from typing import get_args
from urllib.parse import urlsplit

from stagecoach.core.addresses import is_private_road
from stagecoach.firecrest_settings.reading import Theirs
from stagecoach.firecrest_settings.writing import Ours
from stagecoach.settings.identity import Algorithm

KEYCLOAK_CERTS = "/protocol/openid-connect/certs"


def convert_identity(theirs: Theirs | None, ours: Ours) -> None:
    """``auth`` into ``auth.issuers``, one for each of their ``publicCerts``."""
    ours.put("auth.issuers", [])
    if theirs is None:
        ours.check("auth", "FirecREST's file names no identity provider: nobody can come in before one stands here.")
        return
    if theirs.has("authorization"):
        ours.check(
            "auth",
            "FirecREST asked OpenFGA whom to let in to which system. Stagecoach does not: everybody with a token that holds "
            "comes in, as far as the systems let their user. Refuse the others at the identity provider.",
        )
    theirs.leave("authorization", "Stagecoach asks no OpenFGA; everybody with a token that holds comes in")
    authentication = theirs.section("authentication")
    if authentication is None:
        ours.check("auth", "FirecREST's file names no identity provider: nobody can come in before one stands here.")
        return
    _leave_what_has_no_place(authentication)
    _put_issuers(authentication, ours)


def _leave_what_has_no_place(theirs: Theirs) -> None:
    theirs.leave("token_url", "was for FirecREST's health checks and its API page; Stagecoach asks for no token")
    theirs.leave("token_endpoint_auth_method", "Stagecoach asks for no token")
    theirs.leave("scopes", "a provider's token may do all that its user may; only personal tokens have scopes")
    theirs.leave("min_token_ttl", "a token holds until it expires: it is passed on to nobody")


def _put_issuers(theirs: Theirs, ours: Ours) -> None:
    addresses = theirs.take("public_certs") or []
    addresses = addresses if isinstance(addresses, list) else [addresses]
    claim, claim_at = theirs.text("username_claim"), theirs.at("username_claim")
    algorithm, algorithm_at = theirs.text("jwk_algorithm"), theirs.at("jwk_algorithm")
    if not addresses:
        ours.check("auth", "FirecREST's publicCerts is empty: nobody can come in before an issuer stands here.")
    if algorithm is not None and algorithm not in get_args(Algorithm):
        theirs.record.leave(algorithm_at, "is no algorithm that Stagecoach believes: it takes signatures by public keys")
        algorithm = None
    for number, address in enumerate(str(one) for one in addresses):
        path, place = f"auth.issuers.{number}", f"{theirs.at('public_certs')}[{number}]"
        if number == 0:
            ours.put("auth.issuers", {})
        if len(addresses) > 1:
            ours.put(f"{path}.issuer", _issuer(address), place)
            ours.check(f"{path}.issuer", "guessed from the address of its keys; it is the iss of its tokens.")
        keys = address
        if not is_private_road(address) and address.startswith("http://"):
            keys = "https://" + address.removeprefix("http://")
            ours.check(
                f"{path}.jwks",
                "FirecREST read these keys over http; https stands here, because whoever can change them on the way can be "
                "anybody. Give an address that answers, or a file.",
            )
            theirs.record.leave(place, "http:// was made https://")
        ours.put(f"{path}.jwks", keys, place)
        ours.put(f"{path}.any_audience", True)
        ours.check(
            f"{path}.any_audience",
            "FirecREST looks at no audience, so any is taken here: tokens that were made for other services come in too. Set "
            "audience: instead, once the tokens of your users' programs have one.",
        )
        ours.put(f"{path}.username_claim", claim, claim_at)
        if algorithm is not None:
            ours.put(f"{path}.algorithms", [algorithm], algorithm_at)
        if len(addresses) > 1:
            ours.put(f"{path}.user_names", "site")
            ours.check(
                f"{path}.user_names", "as with FirecREST, each of these providers may name any user; see docs/identity.md."
            )


def _issuer(address: str) -> str:
    parts = urlsplit(address)
    path = parts.path.removesuffix(KEYCLOAK_CERTS) if parts.path.endswith(KEYCLOAK_CERTS) else ""
    return f"https://{parts.netloc}{path}"
