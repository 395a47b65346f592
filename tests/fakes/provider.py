"""An identity provider shaped like Keycloak, for tests: a real HTTP server on 127.0.0.1 that issues signed tokens.

It has the metadata, the keys with rotation, and the grants that programs use: device (RFC 8628), client credentials and
refresh (RFC 6749), and revocation (RFC 7009). What people would do in their browser a test does with ``approve``.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
CLIENT_ID, AUDIENCE = "stagecoach-cli", "stagecoach"
SERVICE_ID, SERVICE_SECRET = "nightly-robot", "robot-secret"
ENDPOINTS = "/protocol/openid-connect"


@dataclass
class DeviceLogIn:
    """One request of a device; ``username`` is set when the person has agreed."""

    user_code: str
    scope: str
    expires_at: float
    username: str | None = None
    is_denied: bool = False
    asked_at: list[float] = field(default_factory=list)


class Refusal(Exception):
    """An error answer of OAuth's."""

    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


class Provider:
    """One realm. Its fields may be changed by a test at any time."""

    def __init__(self, realm: str = "hpc", clock: Callable[[], float] = time.time) -> None:
        self.realm = realm
        self.clock = clock
        self.url = ""
        self.interval_seconds = 0.05
        self.access_seconds = 300
        self.device_seconds = 600
        self.slow_downs = 0
        self.rotates_refresh_tokens = True
        self.roles: dict[str, list[str]] = {}
        self.keys = [new_key()]
        self.device_log_ins: dict[str, DeviceLogIn] = {}
        self.refresh_tokens: dict[str, str] = {}
        self.requests: list[str] = []
        self.metadata_changes: dict[str, Any] = {}
        self.is_down = False

    @property
    def issuer(self) -> str:
        """As in its tokens."""
        return f"{self.url}/realms/{self.realm}"

    @contextmanager
    def serving(self) -> Iterator[Provider]:
        """Listens until the end of the block."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def rotate(self, *, keep_old: bool = True) -> None:
        """A new key signs from now on."""
        self.keys = [new_key(), *(self.keys if keep_old else [])]

    def token(
        self, username: str, *, key: ECKey | RSAKey | None = None, header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """An access token, changed; None leaves a claim out."""
        key, now = key or self.keys[0], int(self.clock())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": [AUDIENCE, "account"],
            "azp": CLIENT_ID,
            "sub": f"f:{username}",
            "typ": "Bearer",
            "preferred_username": username,
            "roles": self.roles.get(username, []),
            "iat": now,
            "exp": now + self.access_seconds,
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
        return jwt.encode({"alg": algorithm, "kid": key.kid, "typ": "JWT", **(header or {})}, kept, key)

    def approve(self, user_code: str, username: str) -> None:
        """The person typed the code and agreed."""
        self._by_user_code(user_code).username = username

    def deny(self, user_code: str) -> None:
        """The person typed the code and refused."""
        self._by_user_code(user_code).is_denied = True

    def _by_user_code(self, user_code: str) -> DeviceLogIn:
        return next(one for one in self.device_log_ins.values() if one.user_code == user_code)

    def metadata(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0."""
        base = self.issuer + ENDPOINTS
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{base}/auth",
            "token_endpoint": f"{base}/token",
            "device_authorization_endpoint": f"{base}/auth/device",
            "revocation_endpoint": f"{base}/revoke",
            "jwks_uri": f"{base}/certs",
            "grant_types_supported": [DEVICE_GRANT, "client_credentials", "refresh_token", "authorization_code"],
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        }
        return {name: value for name, value in {**document, **self.metadata_changes}.items() if value is not None}

    def jwks(self) -> dict[str, Any]:
        """The public halves."""
        return {"keys": [{**key.as_dict(private=False), "use": "sig"} for key in self.keys]}

    def answer(self, method: str, path: str, form: dict[str, str]) -> dict[str, Any]:
        """Raises Refusal."""
        realm = f"/realms/{self.realm}"
        routes: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {
            ("GET", f"{realm}/.well-known/openid-configuration"): self.metadata,
            ("GET", f"{realm}{ENDPOINTS}/certs"): self.jwks,
            ("POST", f"{realm}{ENDPOINTS}/auth/device"): lambda: self._begin(form),
            ("POST", f"{realm}{ENDPOINTS}/token"): lambda: self._grant(form),
            ("POST", f"{realm}{ENDPOINTS}/revoke"): lambda: self._revoke(form),
        }
        if (method, path) not in routes:
            raise Refusal("not_found", 404)
        return routes[method, path]()

    def _begin(self, form: dict[str, str]) -> dict[str, Any]:
        if form.get("client_id") != CLIENT_ID:
            raise Refusal("invalid_client", 401)
        user_code = "-".join("".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(4)) for _ in range(2))
        device_code = secrets.token_urlsafe(32)
        self.device_log_ins[device_code] = DeviceLogIn(user_code, form.get("scope", ""), self.clock() + self.device_seconds)
        page = f"{self.issuer}/device"
        return {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={user_code}",
            "expires_in": self.device_seconds,
            "interval": self.interval_seconds,
        }

    def _grant(self, form: dict[str, str]) -> dict[str, Any]:
        kind = form.get("grant_type")
        if kind == "client_credentials":
            if (form.get("client_id"), form.get("client_secret")) != (SERVICE_ID, SERVICE_SECRET):
                raise Refusal("unauthorized_client", 401)
            # Keycloak gives no refresh token here.
            return self._tokens(f"service-account-{SERVICE_ID}", with_refresh=False)
        if form.get("client_id") != CLIENT_ID:
            raise Refusal("invalid_client", 401)
        if kind == DEVICE_GRANT:
            return self._tokens(self._device_user(form.get("device_code", "")))
        if kind == "refresh_token":
            return self._refreshed(form.get("refresh_token", ""))
        raise Refusal("unsupported_grant_type")

    def _device_user(self, device_code: str) -> str:
        log_in = self.device_log_ins.get(device_code)
        if log_in is None:
            raise Refusal("invalid_grant")
        log_in.asked_at.append(time.monotonic())
        if self.clock() >= log_in.expires_at:
            raise Refusal("expired_token")
        if self.slow_downs > 0:
            self.slow_downs -= 1
            raise Refusal("slow_down")
        if log_in.is_denied:
            raise Refusal("access_denied")
        if log_in.username is None:
            raise Refusal("authorization_pending")
        del self.device_log_ins[device_code]
        return log_in.username

    def _refreshed(self, refresh_token: str) -> dict[str, Any]:
        username = self.refresh_tokens.get(refresh_token)
        if username is None:
            raise Refusal("invalid_grant")
        if self.rotates_refresh_tokens:
            del self.refresh_tokens[refresh_token]
            return self._tokens(username)
        return {**self._tokens(username, with_refresh=False), "refresh_token": refresh_token}

    def _tokens(self, username: str, *, with_refresh: bool = True) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "access_token": self.token(username),
            "token_type": "Bearer",
            "expires_in": self.access_seconds,
            "scope": "openid",
        }
        if with_refresh:
            answer["refresh_token"] = secrets.token_urlsafe(24)
            self.refresh_tokens[answer["refresh_token"]] = username
        return answer

    def _revoke(self, form: dict[str, str]) -> dict[str, Any]:
        self.refresh_tokens.pop(form.get("token", ""), None)
        return {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._serve({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
                self._serve({name: values[0] for name, values in parse_qs(body).items()})

            def _serve(self, form: dict[str, str]) -> None:
                path = urlsplit(self.path).path
                provider.requests.append(f"{self.command} {path.rpartition('/')[2]} {form.get('grant_type', '')}".strip())
                try:
                    if provider.is_down:
                        raise Refusal("temporarily_unavailable", 503)
                    status, document = 200, provider.answer(self.command, path, form)
                except Refusal as refusal:
                    status, document = refusal.status, {"error": refusal.error, "error_description": "No."}
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Quietly."""

        return Handler


def new_key() -> ECKey:
    """A key pair with an id."""
    key = ECKey.generate_key("P-256", private=True)
    key.ensure_kid()
    return key
