"""Settings of how this service logs in to a system as its users: their keys, certificates made for them, a service account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from stagecoach.core.addresses import is_private_road
from stagecoach.settings.values import AbsolutePath, HttpUrlText, Secret, Section

USER = "{user}"


def _encrypted(value: str) -> str:
    if not is_private_road(value):
        raise ValueError("must be an https:// URL (http:// only to this machine): its token must not travel in the open")
    return value


class CertificateAuthoritySettings(Section):
    """An SSH certificate authority that the system's sshd trusts for its users (TrustedUserCAKeys)."""

    key_file: AbsolutePath | None = Field(
        None, description="Private key of the authority, without a passphrase; this or signing_service_url."
    )
    signing_service_url: Annotated[HttpUrlText, AfterValidator(_encrypted)] | None = Field(
        None, description="URL of a service that signs, for centres that let no key out; docs/ssh.md has its words."
    )
    signing_service_token: Secret | None = Field(
        None, description="Bearer token that the signing service asks for, if it does; better as secret_file:/path."
    )
    signing_service_ca_file: AbsolutePath | None = Field(
        None, description="PEM file of the authority behind the signing service's TLS certificate; unset, the public ones."
    )
    signing_service_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="Seconds the signing service may take for one certificate."
    )
    ttl_seconds: int = Field(
        3600,
        ge=60,
        le=24 * 3600,
        description="Life of a certificate; it is renewed after two thirds, and no connection is used for longer.",
    )
    principal: str = Field(
        USER,
        pattern=r"^[A-Za-z0-9_.@:{}-]{1,128}$",
        description="Principal in the certificate; {user} stands for the account that logs in.",
    )

    @field_validator("principal")
    @classmethod
    def _names_the_account(cls, value: str) -> str:
        if USER not in value or set("{}") & set(value.replace(USER, "")):
            raise ValueError("must have {user} in it and no other braces: else one user's certificate would open every account")
        return value

    @model_validator(mode="after")
    def _one_signer(self) -> CertificateAuthoritySettings:
        if (self.key_file is None) == (self.signing_service_url is None):
            raise ValueError("needs either key_file or signing_service_url")
        if self.signing_service_url is None and (self.signing_service_token or self.signing_service_ca_file):
            raise ValueError("signing_service_token and signing_service_ca_file go with signing_service_url")
        return self


class ServiceAccountSettings(Section):
    """One account that logs in for everybody and becomes the user by a command, as sudoers allows it."""

    username: str = Field(
        ...,
        pattern=r"^[a-z_][a-z0-9_.-]{0,63}$",
        description="The account; it should be allowed nothing but to become the users.",
    )
    switch_user: tuple[str, ...] = Field(
        ("sudo", "-n", "-u", USER, "--"),
        min_length=2,
        description="Words before each command that make it run as the user; {user} stands for the user name.",
    )
    sftp_server: tuple[str, ...] = Field(
        ("/usr/lib/openssh/sftp-server", "-d", "%d"),
        min_length=1,
        description="The SFTP server, run behind switch_user; -d %d has it begin in the user's home.",
    )

    @field_validator("switch_user", "sftp_server")
    @classmethod
    def _plain_words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not word or "\0" in word or "\n" in word for word in value):
            raise ValueError("is a list of words, none of them empty, without line breaks")
        return value

    @field_validator("switch_user")
    @classmethod
    def _switches(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not any(USER in word for word in value[1:]):
            raise ValueError("needs a word with {user}: else everything would run as the service account")
        return value

    @model_validator(mode="after")
    def _not_root(self) -> ServiceAccountSettings:
        if self.username == "root":
            raise ValueError("username must not be root: give an account that may become users and nothing else")
        return self

    def switched(self, username: str, words: Sequence[str]) -> list[str]:
        """``words`` behind the switch to ``username``."""
        return [*(word.replace(USER, username) for word in self.switch_user), *words]


class CredentialsSettings(Section):
    """How this service logs in. Host keys are checked whatever stands here."""

    key_file: AbsolutePath | None = Field(
        None,
        description=(
            "Private key of each user; {user} stands for the account that logs in: the user, or the service account. "
            "This or certificate_authority."
        ),
    )
    certificate_file: AbsolutePath | None = Field(
        None, description="OpenSSH certificate beside the key, where the site issues them; {user} as above."
    )
    certificate_authority: CertificateAuthoritySettings | None = Field(
        None,
        description="Instead of key files: a key made in memory at each start, and short-lived certificates for it.",
    )
    service_account: ServiceAccountSettings | None = Field(
        None, description="One account that logs in for all users and runs each command as one of them; unset, users log in."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> CredentialsSettings:
        if (self.key_file is None) == (self.certificate_authority is None):
            raise ValueError("needs either key_file or certificate_authority")
        if self.certificate_file is not None and self.key_file is None:
            raise ValueError("certificate_file goes with key_file")
        return self

    def login_name(self, username: str) -> str:
        """The account that logs in for ``username``."""
        return username if self.service_account is None else self.service_account.username
