"""Which URLs and addresses may be posted to, and messages signed so that others' libraries verify them."""

from __future__ import annotations

import base64

import pytest

from stagecoach.core.errors import WebhookRefused
from stagecoach.core.webhooks import is_refused_address, secret_bytes, signed_headers, wait_seconds, webhook_target

HOSTS = ("hooks.example.org", "*.portal.example.org", "other.example.org:8443", "[::1]:9000")


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://hooks.example.org/x?token=s3cret", "hooks.example.org"),
        ("https://HOOKS.example.org:443", "hooks.example.org"),
        ("https://a.portal.example.org/", "a.portal.example.org"),
        ("https://a.b.portal.example.org/", "a.b.portal.example.org"),
        ("https://other.example.org:8443/", "other.example.org:8443"),
        ("https://[::1]:9000/", "[::1]:9000"),
    ],
)
def test_an_allowed_host_may_be_told(url: str, authority: str) -> None:
    assert webhook_target(url, HOSTS, allow_http=False).authority == authority


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://hooks.example.org/s3cret", "https://"),
        ("ftp://hooks.example.org/s3cret", "https://"),
        ("//hooks.example.org/s3cret", "https://"),
        ("hooks.example.org/s3cret", "https://"),
        ("https:///s3cret", "host"),
        ("https://user:s3cret@hooks.example.org/", "user name"),
        ("https://s3cret@hooks.example.org/", "user name"),
        ("https://@hooks.example.org/", "user name"),
        ("https://hooks.example.org/#s3cret", "fragment"),
        ("https://hooks.example.org/#", "fragment"),
        ("https://hooks.example.org:8443/s3cret", "none of the hosts"),
        ("https://hooks.example.org:0/s3cret", "port"),
        ("https://hooks.example.org:99999/s3cret", "no URL"),
        ("https://hooks.example.org:s3cret/", "no URL"),
        ("https://other.example.org/s3cret", "none of the hosts"),
        ("https://portal.example.org/s3cret", "none of the hosts"),
        ("https://xportal.example.org/s3cret", "none of the hosts"),
        ("https://.portal.example.org/s3cret", "none of the hosts"),
        ("https://hooks.example.org.evil.net/s3cret", "none of the hosts"),
        ("https://hooks.example.org./s3cret", "none of the hosts"),
        ("https://evil.net/s3cret?hooks.example.org", "none of the hosts"),
        ("https://evil.net\\@hooks.example.org/s3cret", "visible ASCII"),
        ("https://hooks.example.org/a b", "visible ASCII"),
        ("https://hooks.example.org/\r\nHost: s3cret", "visible ASCII"),
        ("https://hooks.example.org/é", "visible ASCII"),
        ("https://hooks%2eexample.org/s3cret", "https://"),
        ("https://[::1/s3cret", "no URL"),
        ("https://hooks.example.org/" + "x" * 2048, "2048"),
        ("", "2048"),
    ],
)
def test_any_other_url_is_refused_in_words_that_repeat_none_of_it(url: str, words: str) -> None:
    with pytest.raises(WebhookRefused, match=words) as refused:
        webhook_target(url, HOSTS, allow_http=False)
    assert "s3cret" not in refused.value.message


def test_plain_http_is_for_who_allows_it_and_no_host_means_no_webhooks() -> None:
    assert webhook_target("http://hooks.example.org/", HOSTS, allow_http=True).port == 80
    with pytest.raises(WebhookRefused, match="sends no webhooks"):
        webhook_target("https://hooks.example.org/", (), allow_http=True)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "192.0.0.192",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
    ],
)
def test_no_name_leads_to_a_metadata_service(address: str) -> None:
    assert is_refused_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "192.168.1.1", "8.8.8.8", "::1", "fd12::1", "2001:db8::1"])
def test_an_allowed_host_may_be_anywhere_else(address: str) -> None:
    assert not is_refused_address(address)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's own libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    assert signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_!" + "A" * 40, "A" * 44, "whsec_" + "A" * 400])
def test_a_secret_that_is_none_is_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError) as refused:
        secret_bytes(secret)
    key = secret.removeprefix("whsec_")
    assert not key or key not in str(refused.value)
    assert len(secret_bytes("whsec_" + base64.b64encode(bytes(24)).decode())) == 24


def test_ten_tries_take_most_of_a_day() -> None:
    waits = [wait_seconds(tries, 0.5) for tries in range(1, 10)]
    assert waits == sorted(waits)
    assert waits[0] == 5
    assert 20 * 3600 < sum(waits) < 24 * 3600
    assert wait_seconds(1, 0.0) == pytest.approx(4)
    assert wait_seconds(30, 0.999) <= 1.2 * 24 * 3600
