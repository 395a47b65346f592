"""A token issuer of our own for one machine: a key pair on disk, its public half as a JWKS, and signed tokens.

The embedded mode and the testbed use it. A centre uses its identity provider instead.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from stagecoach.core.errors import SettingsError
from stagecoach.settings import IssuerSettings


def ensure_signing_key(key_file: Path, jwks_file: Path) -> ECKey:
    """The key in ``key_file`` (made, mode 0600, when absent), with its public half in ``jwks_file``."""
    if key_file.exists():
        try:
            key = ECKey.import_key(json.loads(key_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, JoseError) as error:
            raise SettingsError(f"{key_file} holds no signing key that can be read; move it away to get a new one.") from error
    else:
        key = ECKey.generate_key("P-256", private=True)
        key.ensure_kid()
        key_file.parent.mkdir(parents=True, exist_ok=True)
        _write(key_file, json.dumps(key.as_dict(private=True)), 0o600)
    public = json.dumps({"keys": [{**key.as_dict(private=False), "use": "sig", "alg": "ES256"}]})
    if not jwks_file.exists() or jwks_file.read_text(encoding="utf-8") != public:
        jwks_file.parent.mkdir(parents=True, exist_ok=True)
        _write(jwks_file, public, 0o644)
    return key


def sign_token(key: ECKey, username: str, ttl_seconds: int, issuer: IssuerSettings, *, is_admin: bool = False) -> str:
    """A token for ``username`` that a service with these ``issuer`` settings believes."""
    now = int(time.time())
    claims: dict[str, object] = {"sub": username, issuer.username_claim: username, "iat": now, "exp": now + ttl_seconds}
    if issuer.issuer is not None:
        claims["iss"] = issuer.issuer
    if issuer.audience is not None:
        claims["aud"] = issuer.audience
    if is_admin:
        claims[issuer.admin_claim] = [issuer.admin_role]
    return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key)


def _write(path: Path, text: str, mode: int) -> None:
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
