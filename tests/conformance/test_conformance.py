"""The application answers as ``openapi/openapi.json`` says, whatever is asked of it: a small run of ``run.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.run import conform

# For the administrator what is for administrators only; for the user all the rest as well.
ADMINISTRATION = {"get_accounts", "get_audit", "get_settings", "get_systems"}
ORDINARY = {
    *("get_auth_methods", "get_health", "get_me", "get_tokens", "get_transfers", "get_transfer", "post_download"),
    *("get_system_status", "get_nodes", "get_partitions", "get_userinfo", "post_job", "get_jobs"),
    *("get_ls", "get_stat", "post_mkdir", "post_direct_upload", "post_transfer"),
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("is_admin", "options", "succeeding"),
    [
        pytest.param(False, (), ORDINARY, id="user"),
        pytest.param(True, ("--include-tag", "admin", "--include-tag", "identity"), ADMINISTRATION, id="administrator"),
    ],
)
def test_every_answer_is_as_the_document_says(
    tmp_path: Path, is_admin: bool, options: tuple[str, ...], succeeding: set[str]
) -> None:
    result = conform(tmp_path, 2, "--seed", "20300517", *options, is_admin=is_admin)
    assert result.exit_code == 0, result.said
    assert result.server_errors == {}
    assert result.cases > 300, result.said
    # It is no proof where everything was refused.
    assert not succeeding & set(result.unanswered), result.said
