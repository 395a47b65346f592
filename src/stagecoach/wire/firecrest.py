"""FirecREST v2's shapes for transfers, and the older flat form (path, fileName, fileSize at top level).

Every key is understood in camelCase and snake_case; sizes also as text; ``account: ""`` is no account.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field

from stagecoach.wire.digests import SaidDigests
from stagecoach.wire.shapes import Shape, SizeBytes

# A relative path has an error of its own, so the pattern is told and not held to here.
PathText = Annotated[str, Field(min_length=1, max_length=4096, json_schema_extra={"pattern": r"^/[^\x00]*$"})]
AccountName = Annotated[str, Field(max_length=64)]
Account = Annotated[AccountName | None, BeforeValidator(lambda value: None if value == "" else value)]
Archive = Literal["tar"]


class TransferDirectives(Shape):
    """How to transfer. Stagecoach speaks ``s3``; the other methods are refused by name."""

    transfer_method: Literal["s3", "streamer", "wormhole"] = Field(
        "s3", validation_alias=AliasChoices("transferMethod", "transfer_method")
    )
    file_size: SizeBytes | None = Field(
        None, validation_alias=AliasChoices("fileSize", "file_size"), description="Uploads: size of the file in bytes."
    )
    wormhole_code: str | None = Field(None, validation_alias=AliasChoices("wormholeCode", "wormhole_code"), max_length=256)


WebhookUrl = Annotated[
    str | None,
    Field(
        validation_alias=AliasChoices("webhookUrl", "webhook_url"),
        max_length=2048,
        description="Ours. Told each change of the transfer's state, signed; https, on a host that this service allows.",
    ),
]
TransferState = Annotated[
    str | None, Field(description="Ours. The transfer's state, where an earlier request with the same Idempotency-Key began it.")
]


class UploadRequest(SaidDigests):
    """With ``transferDirectives`` (FirecREST 2.3 and later) ``path`` names the file; without, it is the older flat form,
    where ``path`` names the directory and ``fileName`` the file in it (or ``path`` the file, when there is no name)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"path": "/home/alice/big.bin", "transferDirectives": {"transferMethod": "s3", "fileSize": 7340032}},
                {"path": "/home/alice", "fileName": "big.bin", "fileSize": 7340032},
            ]
        }
    )

    path: PathText = Field(validation_alias=AliasChoices("path", "sourcePath", "source_path"))
    transfer_directives: TransferDirectives | None = Field(
        None, validation_alias=AliasChoices("transferDirectives", "transfer_directives")
    )
    file_name: str | None = Field(None, validation_alias=AliasChoices("fileName", "file_name"), max_length=255)
    file_size: SizeBytes | None = Field(None, validation_alias=AliasChoices("fileSize", "file_size"))
    account: Account = None
    archive: Archive | None = Field(
        None,
        description=(
            "Ours. tar: what is sent is a tar stream of fileSize bytes; path names the directory that is made of it, "
            "which does not exist yet or is empty."
        ),
    )
    webhook_url: WebhookUrl = None


class DownloadRequest(Shape):
    """With ``transferDirectives`` the answer has them too; without, it is the older flat form."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"path": "/home/alice/big.bin", "transferDirectives": {"transferMethod": "s3"}}]}
    )

    path: PathText = Field(validation_alias=AliasChoices("path", "sourcePath", "source_path"))
    transfer_directives: TransferDirectives | None = Field(
        None, validation_alias=AliasChoices("transferDirectives", "transfer_directives")
    )
    account: Account = None
    archive: Archive | None = Field(
        None, description="Ours. tar: path names a directory; what is staged is a tar stream of all of it."
    )
    webhook_url: WebhookUrl = None


class TransferJobLogs(Shape):
    """Where the staging job writes on the system."""

    output_log: str
    error_log: str


class TransferJob(Shape):
    """The staging job."""

    job_id: str
    system: str
    working_directory: str
    logs: TransferJobLogs


class S3Directives(Shape):
    """What the client works with."""

    transfer_method: Literal["s3"] = "s3"
    parts_upload_urls: list[str] | None = None
    complete_upload_url: str | None = None
    max_part_size: int | None = None
    download_url: str | None = None


class OperationAnswer(Shape):
    """The job of an operation on files within a system."""

    transfer_job: TransferJob
    transfer_id: str = Field(description="The transfer's id at /transfers/{id}; ours.")
    transfer_state: TransferState = None


class TransferAnswer(Shape):
    """FirecREST 2.3 and later."""

    transfer_job: TransferJob
    transfer_directives: S3Directives
    transfer_id: str = Field(description="The transfer's id at /transfers/{id}; ours.")
    transfer_state: TransferState = None


class FlatUploadAnswer(Shape):
    """The older flat form of an upload. It has no URLs where a repeated request's transfer takes no parts any more."""

    max_part_size: int
    parts_upload_urls: list[str] | None = None
    complete_upload_url: str | None = None
    complete_multipart_upload_url: str | None = Field(
        None, description="The same; FirecREST's own client looks for this name here."
    )
    transfer_job: TransferJob
    transfer_id: str = Field(description="The transfer's id at /transfers/{id}; ours.")
    transfer_state: TransferState = None


class FlatDownloadAnswer(Shape):
    """The older flat form of a download. It has no URL where a repeated request's transfer has ended."""

    download_url: str | None = None
    transfer_job: TransferJob
    transfer_id: str = Field(description="The transfer's id at /transfers/{id}; ours.")
    transfer_state: TransferState = None
