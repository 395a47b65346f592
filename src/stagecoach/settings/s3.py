"""Settings of the staging area: the S3 store, its buckets and their lifecycle."""

from __future__ import annotations

from pydantic import Field, SecretStr

from stagecoach.core.parts import MAX_PART_SIZE_BYTES, MEBIBYTE, MIN_PART_SIZE_BYTES
from stagecoach.settings.systems import MAX_URL_TTL_SECONDS
from stagecoach.settings.values import HttpUrlText, Secret, Section


class BucketLifecycleSettings(Section):
    """How long the store keeps what nobody cleaned: the net under the worker's own clean-up."""

    days: int = Field(
        10,
        ge=1,
        le=3650,
        description="Days until a staged object expires; the worker removes it then, the bucket's rule is the net.",
    )
    abort_incomplete_multipart_days: int = Field(
        7, ge=1, le=3650, description="Days until the store aborts a multipart upload that was never completed."
    )


class S3Settings(Section):
    """The S3 store that data is staged in."""

    private_url: HttpUrlText = Field(
        "http://127.0.0.1:7480",
        description="How this service reaches the store; jobs too, unless their system has an s3_url.",
    )
    public_url: HttpUrlText | None = Field(None, description="How clients outside reach the same store; private_url when unset.")
    region: str = Field("us-east-1", pattern=r"^[a-zA-Z0-9-]{1,64}$", description="Region used in signatures.")
    access_key_id: Secret = Field(SecretStr(""), description="Access key of the service account; a value or secret_file:/path.")
    secret_access_key: Secret = Field(
        SecretStr(""), description="Secret key of the service account; a value or secret_file:/path."
    )
    tenant: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]{1,64}$",
        description="Ceph tenant that owns the buckets, written tenant:bucket in requests.",
    )
    ttl_seconds: int = Field(
        24 * 3600,
        alias="ttl",
        ge=60,
        le=MAX_URL_TTL_SECONDS,
        description="Seconds a presigned URL for a client lives, unless its owner asks for another time; at most seven days.",
    )
    max_part_size_bytes: int = Field(
        1024 * MEBIBYTE,
        alias="max_part_size",
        ge=MIN_PART_SIZE_BYTES,
        le=MAX_PART_SIZE_BYTES,
        description="Largest part, in bytes, between 5 MiB and 5 GiB; with 10,000 parts it bounds the largest file.",
    )
    min_part_size_bytes: int = Field(
        8 * MEBIBYTE,
        alias="min_part_size",
        ge=MIN_PART_SIZE_BYTES,
        le=MAX_PART_SIZE_BYTES,
        description=(
            "Smallest part, in bytes, that a file is cut into. Parts grow with the file: up to 32 MiB so that 64 suffice, and "
            "further so that it never has more than 10,000."
        ),
    )
    bucket_lifecycle_configuration: BucketLifecycleSettings = Field(
        default_factory=BucketLifecycleSettings, description="Rules kept on every bucket, existing ones too."
    )
    bucket_prefix: str = Field(
        "stagecoach-",
        pattern=r"^([a-z0-9][a-z0-9-]{0,30})?$",
        description=(
            "Beginning of every bucket's name; the rest is made from the user's name. Two services with one S3 account "
            "must have different ones."
        ),
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Web origins whose pages may send parts straight to the store, e.g. https://portal.example.org."
    )
    request_timeout_seconds: float = Field(
        20.0, gt=0, le=600, description="Seconds one call of this service to the store may take."
    )
    max_staged_bytes_per_user: int | None = Field(
        None, ge=1, description="Quota: bytes of one user's transfers that may be in the store at once; unset, no quota."
    )
    max_staged_bytes: int | None = Field(
        None, ge=1, description="Bytes of all transfers that may be in the store at once; unset, what the store holds."
    )

    @property
    def client_url(self) -> str:
        """The URL that clients' presigned URLs are made for."""
        return self.public_url or self.private_url

    @property
    def object_life_seconds(self) -> int:
        """How long a staged object is kept."""
        return self.bucket_lifecycle_configuration.days * 24 * 3600
