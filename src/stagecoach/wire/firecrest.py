"""FirecREST v2's shapes for transfers and their jobs, and the older flat form (path, fileName, fileSize at top level).

Every key is understood in camelCase and snake_case; sizes also as text; ``account: ""`` is no account.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field

from stagecoach.wire.shapes import Shape, SizeBytes

PathText = Annotated[str, Field(min_length=1, max_length=4096)]
AccountName = Annotated[str, Field(max_length=64)]
Account = Annotated[AccountName | None, BeforeValidator(lambda value: None if value == "" else value)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


class TransferDirectives(Shape):
    """How to transfer. Stagecoach speaks ``s3``; the other methods are refused by name."""

    transfer_method: Literal["s3", "streamer", "wormhole"] = Field(
        "s3", validation_alias=AliasChoices("transferMethod", "transfer_method")
    )
    file_size: SizeBytes | None = Field(
        None, validation_alias=AliasChoices("fileSize", "file_size"), description="Uploads: size of the file in bytes."
    )
    wormhole_code: str | None = Field(None, validation_alias=AliasChoices("wormholeCode", "wormhole_code"), max_length=256)


class UploadRequest(Shape):
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
    sha256: Sha256 | None = Field(None, description="SHA-256 of the whole file, compared on the cluster.")


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


class TransferAnswer(Shape):
    """FirecREST 2.3 and later."""

    transfer_job: TransferJob
    transfer_directives: S3Directives
    transfer_id: str = Field(description="The transfer's id at /transfers/{id}; ours.")


class FlatUploadAnswer(Shape):
    """The older flat form of an upload."""

    max_part_size: int
    parts_upload_urls: list[str]
    complete_upload_url: str
    complete_multipart_upload_url: str = Field(description="The same; FirecREST's own client looks for this name here.")
    transfer_job: TransferJob
    transfer_id: str = Field(description="The transfer's id at /transfers/{id}; ours.")


class FlatDownloadAnswer(Shape):
    """The older flat form of a download."""

    download_url: str
    transfer_job: TransferJob
    transfer_id: str = Field(description="The transfer's id at /transfers/{id}; ours.")


class JobStatus(Shape):
    """State as FirecREST's client understands it: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED or TIMEOUT."""

    state: str
    state_reason: str | None = None
    exit_code: int | None = None
    interrupt_signal: int | None = None


class JobTime(Shape):
    """Seconds, and times in epoch seconds."""

    elapsed: int | None = None
    start: int | None = None
    end: int | None = None
    suspended: int | None = None
    limit: int | None = None


class JobTask(Shape):
    """A step of a job."""

    id: str
    name: str
    status: JobStatus
    time: JobTime


class Job(Shape):
    """A job."""

    job_id: str
    name: str
    status: JobStatus
    tasks: list[JobTask] | None = None
    time: JobTime
    account: str | None = None
    allocation_nodes: int = 1
    cluster: str
    group: str | None = None
    nodes: str
    partition: str
    kill_request_user: str | None = None
    user: str
    working_directory: str
    priority: int | None = None


class JobsAnswer(Shape):
    """Jobs."""

    jobs: list[Job]
