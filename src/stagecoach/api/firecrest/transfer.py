"""``/filesystem/{system}/transfer``: FirecREST v2.5's form and the older flat one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from stagecoach.api.access import CurrentCaller, Tools
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.errors import InvalidRequest, PathRefused, SizeRefused
from stagecoach.core.job_scripts import ERROR_FILE, OUTPUT_FILE
from stagecoach.core.transfer import Transfer
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.wire import firecrest as wire

router = APIRouter(prefix="/filesystem/{system}/transfer", tags=["filesystem"], responses=PROBLEM_ANSWERS)
SystemName = Annotated[str, Path(min_length=1, max_length=64, description="A system's name.")]


@router.post("/upload", status_code=201, response_model_exclude_none=True, summary="Begin an upload")
async def post_upload(
    system: SystemName, request: wire.UploadRequest, caller: CurrentCaller, tools: Tools
) -> wire.TransferAnswer | wire.FlatUploadAnswer:
    """Answers with one URL per part and the URL that completes the upload; the staging job waits, held.

    Put bytes [i × maxPartSize, (i+1) × maxPartSize) to the i-th URL, collect the ETags, POST the completion.
    """
    directives = request.transfer_directives
    _require_s3(directives)
    size = directives.file_size if directives is not None else request.file_size
    if size is None:
        raise SizeRefused("fileSize is missing: say how many bytes will come, between 0 and 5 TiB.")
    path = request.path if directives is not None else _flat_path(request)
    digests = {"sha256": request.sha256.lower()} if request.sha256 else {}
    begun = await begin_upload(tools, caller, system, path, size, request.account, digests)
    transfer = begun.transfer
    if directives is None:
        return wire.FlatUploadAnswer(
            max_part_size=transfer.part_size_bytes,
            parts_upload_urls=begun.part_urls,
            complete_upload_url=begun.complete_url,
            complete_multipart_upload_url=begun.complete_url,
            transfer_job=_job(transfer),
            transfer_id=transfer.id,
        )
    return wire.TransferAnswer(
        transfer_job=_job(transfer),
        transfer_directives=wire.S3Directives(
            parts_upload_urls=begun.part_urls,
            complete_upload_url=begun.complete_url,
            max_part_size=transfer.part_size_bytes,
        ),
        transfer_id=transfer.id,
    )


@router.post("/download", status_code=201, response_model_exclude_none=True, summary="Begin a download")
async def post_download(
    system: SystemName, request: wire.DownloadRequest, caller: CurrentCaller, tools: Tools
) -> wire.TransferAnswer | wire.FlatDownloadAnswer:
    """Answers with the URL that will hold once the staging job has put the file into the store."""
    _require_s3(request.transfer_directives)
    begun = await begin_download(tools, caller, system, request.path, request.account)
    transfer = begun.transfer
    if request.transfer_directives is None:
        return wire.FlatDownloadAnswer(download_url=begun.download_url, transfer_job=_job(transfer), transfer_id=transfer.id)
    return wire.TransferAnswer(
        transfer_job=_job(transfer),
        transfer_directives=wire.S3Directives(download_url=begun.download_url),
        transfer_id=transfer.id,
    )


def _require_s3(directives: wire.TransferDirectives | None) -> None:
    if directives is not None and directives.transfer_method != "s3":
        raise InvalidRequest("Requested transfer method is not available.")


def _flat_path(request: wire.UploadRequest) -> str:
    name = request.file_name
    if not name:
        return request.path
    if "/" in name or name in {".", ".."}:
        raise PathRefused("fileName is the name of a file in the directory 'path'; it holds no '/'.")
    return request.path.rstrip("/") + "/" + name


def _job(transfer: Transfer) -> wire.TransferJob:
    directory = transfer.job_directory or ""
    logs = wire.TransferJobLogs(output_log=f"{directory}/{OUTPUT_FILE}", error_log=f"{directory}/{ERROR_FILE}")
    return wire.TransferJob(job_id=transfer.job_id or "", system=transfer.system, working_directory=directory, logs=logs)
