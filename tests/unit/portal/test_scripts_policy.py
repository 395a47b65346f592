"""Which script of the pages may do what: the policy of each, as the browser is told it."""

from __future__ import annotations

from tests.unit.portal.conftest import Browser


async def test_webassembly_runs_in_the_digest_worker_alone(stranger: Browser) -> None:
    worker = await stranger.client.get("/portal/static/upload/digest-worker.js")
    assert worker.status_code == 200
    assert worker.headers.get_list("content-security-policy") == [
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; frame-ancestors 'none'"
    ]
    for path in ("/portal/sign-in", "/portal/static/upload.js", "/portal/static/upload/digests.js"):
        policy = (await stranger.client.get(path)).headers["content-security-policy"]
        assert "script-src 'self';" in policy, path
        assert "unsafe" not in policy, path
