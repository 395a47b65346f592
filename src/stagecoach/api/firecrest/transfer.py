"""``/filesystem/{system}/transfer``: FirecREST v2.5's form and the older flat one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from stagecoach.api.access import Tools, TransfersWriter
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.idempotency import IdempotencyKey, repeatable_request
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.audit_log import Act
from stagecoach.core.errors import InvalidRequest, PathRefused, SizeRefused
from stagecoach.core.job_scripts import ERROR_FILE, OUTPUT_FILE
from stagecoach.core.transfer import Archive, Transfer
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.wire import firecrest as wire

router = APIRouter(prefix="/filesystem/{system}/transfer", tags=["filesystem"], responses=PROBLEM_ANSWERS)
SystemName = Annotated[str, Path(pattern=r"^(node:)?[A-Za-z0-9._-]{1,64}$", description="A system's name; node:<id> for a node.")]

# Where programs that read the document go on with what was begun.
_NEXT = ("get_transfer", "get_parts", "post_finish", "get_download_url", "post_retry", "delete_transfer")
_OF_TRANSFER = {name: {"operationId": name, "parameters": {"transfer_id": "$response.body#/transferId"}} for name in _NEXT}
_OF_JOB = {"system": "$request.path.system", "job_id": "$response.body#/transferJob/jobId"}
LINKS: dict[int | str, dict[str, Any]] = {
    201: {"links": {**_OF_TRANSFER, "get_job": {"operationId": "get_job", "parameters": _OF_JOB}}}
}

_NEXT_OF_JOB = ("get_transfer", "post_retry", "delete_transfer")
LINKS_OF_JOB: dict[int | str, dict[str, Any]] = {
    201: {
        "links": {
            **{name: _OF_TRANSFER[name] for name in _NEXT_OF_JOB},
            "get_job": {"operationId": "get_job", "parameters": _OF_JOB},
        }
    }
}


@router.post("/upload", status_code=201, response_model_exclude_none=True, summary="Begin an upload", responses=LINKS)
async def post_upload(
    system: SystemName,
    request: wire.UploadRequest,
    caller: TransfersWriter,
    tools: Tools,
    key: IdempotencyKey,
    trail: CurrentTrail,
) -> wire.TransferAnswer | wire.FlatUploadAnswer:
    """Answers with one URL per part and the URL that completes the upload; the staging job waits, held.

    Put bytes [i × maxPartSize, (i+1) × maxPartSize) to the i-th URL, collect the ETags, POST the completion. Repeated
    with the same Idempotency-Key it answers the same transfer again, with fresh URLs while parts can be put.
    """
    directives = request.transfer_directives
    _require_s3(directives)
    size = directives.file_size if directives is not None else request.file_size
    if size is None:
        raise SizeRefused("fileSize is missing: say how many bytes will come, between 0 and 5 TiB.")
    path = request.path if directives is not None else _flat_path(request)
    async with trail.of(Act.UPLOAD_BEGUN, system=system, path=path, size_bytes=size) as noted:
        begun = await begin_upload(
            tools,
            caller,
            system,
            path,
            size,
            request.account,
            request.whole,
            _archive(request),
            request.parts,
            request.webhook_url,
            repeatable_request(key, system, "upload", request),
        )
        noted.target = begun.transfer.id
    transfer = begun.transfer
    state = transfer.state.value if begun.is_repeated else None
    part_urls, complete_url = begun.part_urls or None, begun.complete_url or None
    if directives is None:
        return wire.FlatUploadAnswer(
            max_part_size=transfer.part_size_bytes,
            parts_upload_urls=part_urls,
            complete_upload_url=complete_url,
            complete_multipart_upload_url=complete_url,
            transfer_job=transfer_job(transfer),
            transfer_id=transfer.id,
            transfer_state=state,
        )
    return wire.TransferAnswer(
        transfer_job=transfer_job(transfer),
        transfer_directives=wire.S3Directives(
            parts_upload_urls=part_urls,
            complete_upload_url=complete_url,
            max_part_size=transfer.part_size_bytes,
        ),
        transfer_id=transfer.id,
        transfer_state=state,
    )


@router.post("/download", status_code=201, response_model_exclude_none=True, summary="Begin a download", responses=LINKS)
async def post_download(
    system: SystemName,
    request: wire.DownloadRequest,
    caller: TransfersWriter,
    tools: Tools,
    key: IdempotencyKey,
    trail: CurrentTrail,
) -> wire.TransferAnswer | wire.FlatDownloadAnswer:
    """Answers with the URL that will hold once the staging job has put the file into the store.

    Repeated with the same Idempotency-Key it answers the same transfer again, with a fresh URL until it has ended.
    """
    _require_s3(request.transfer_directives)
    async with trail.of(Act.DOWNLOAD_BEGUN, system=system, path=request.path) as noted:
        begun = await begin_download(
            tools,
            caller,
            system,
            request.path,
            request.account,
            _archive(request),
            request.webhook_url,
            repeatable_request(key, system, "download", request),
        )
        noted.target = begun.transfer.id
    transfer, url = begun.transfer, begun.download_url or None
    state = transfer.state.value if begun.is_repeated else None
    if request.transfer_directives is None:
        return wire.FlatDownloadAnswer(
            download_url=url, transfer_job=transfer_job(transfer), transfer_id=transfer.id, transfer_state=state
        )
    return wire.TransferAnswer(
        transfer_job=transfer_job(transfer),
        transfer_directives=wire.S3Directives(download_url=url),
        transfer_id=transfer.id,
        transfer_state=state,
    )


def _archive(request: wire.UploadRequest | wire.DownloadRequest) -> Archive | None:
    return Archive(request.archive) if request.archive is not None else None


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


def transfer_job(transfer: Transfer) -> wire.TransferJob:
    """Where its job is and writes."""
    directory = transfer.job_directory or ""
    # A node keeps its logs to itself.
    output, error = (f"{directory}/{OUTPUT_FILE}", f"{directory}/{ERROR_FILE}") if directory else ("", "")
    logs = wire.TransferJobLogs(output_log=output, error_log=error)
    return wire.TransferJob(job_id=transfer.job_id or "", system=transfer.system, working_directory=directory, logs=logs)
