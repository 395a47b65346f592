"""The signature is the one that botocore makes."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from stagecoach.agent.s3_request_signing import signed_headers

NOW = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize("path", ["/", "/data", "/data/a b%c+d~é/(x)"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_it_is_the_one_that_botocore_makes(path: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = signed_headers(method, "host.example:8443", path, access_key_id="AK", secret_access_key="SK", now=NOW)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: NOW.replace(tzinfo=None))
    request = AWSRequest(method, f"https://host.example:8443{quote(path)}")
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    botocore.auth.S3SigV4Auth(Credentials("AK", "SK"), "s3", "us-east-1").add_auth(request)
    assert ours["x-amz-date"] == request.headers["X-Amz-Date"]
    assert ours["authorization"] == request.headers["Authorization"]
