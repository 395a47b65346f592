"""``/filesystem/{system}/transfer``: mv, cp, rm, compress and extract, each done by a job that is a transfer of ours."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from stagecoach.api.access import Tools, TransfersWriter
from stagecoach.api.audit_trail import CurrentTrail, Trail
from stagecoach.api.firecrest.transfer import LINKS_OF_JOB, SystemName, transfer_job
from stagecoach.api.idempotency import IdempotencyKey, repeatable_request
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.access import Caller
from stagecoach.core.audit_log import Act
from stagecoach.core.operations import Operation, OperationOptions
from stagecoach.flows.begin_operation import OperationRequest, begin_operation
from stagecoach.flows.toolbox import Toolbox
from stagecoach.wire import firecrest as wire
from stagecoach.wire import operations as bodies

router = APIRouter(prefix="/filesystem/{system}/transfer", tags=["filesystem"], responses=PROBLEM_ANSWERS)
_ACTS = {
    Operation.MOVE: Act.MOVE_BEGUN,
    Operation.COPY: Act.COPY_BEGUN,
    Operation.REMOVE: Act.REMOVAL_BEGUN,
    Operation.COMPRESS: Act.COMPRESSION_BEGUN,
    Operation.EXTRACT: Act.EXTRACTION_BEGUN,
}


@router.post("/mv", status_code=201, response_model_exclude_none=True, summary="Move files by a job", responses=LINKS_OF_JOB)
async def post_mv(
    system: SystemName,
    request: bodies.MoveRequest,
    caller: TransfersWriter,
    tools: Tools,
    key: IdempotencyKey,
    trail: CurrentTrail,
) -> wire.OperationAnswer:
    """Within a file system a rename; else a copy that takes its place when it is whole, after which the source goes."""
    return await _begun(tools, caller, system, Operation.MOVE, request, OperationOptions(), key, trail)


@router.post("/cp", status_code=201, response_model_exclude_none=True, summary="Copy files by a job", responses=LINKS_OF_JOB)
async def post_cp(
    system: SystemName,
    request: bodies.CopyRequest,
    caller: TransfersWriter,
    tools: Tools,
    key: IdempotencyKey,
    trail: CurrentTrail,
) -> wire.OperationAnswer:
    """Modes, times, links within and what else a copy can keep are kept; it takes its place when it is whole."""
    options = OperationOptions(dereference=request.dereference)
    return await _begun(tools, caller, system, Operation.COPY, request, options, key, trail)


@router.post(
    "/compress",
    status_code=201,
    response_model_exclude_none=True,
    summary="Pack files into an archive by a job",
    responses=LINKS_OF_JOB,
)
async def post_transfer_compress(
    system: SystemName,
    request: bodies.CompressJobRequest,
    caller: TransfersWriter,
    tools: Tools,
    key: IdempotencyKey,
    trail: CurrentTrail,
) -> wire.OperationAnswer:
    """A tar archive, which takes its place when it is whole and has been read again."""
    options = OperationOptions(request.dereference, request.compression, request.match_pattern)
    return await _begun(tools, caller, system, Operation.COMPRESS, request, options, key, trail)


@router.post(
    "/extract",
    status_code=201,
    response_model_exclude_none=True,
    summary="Unpack an archive by a job",
    responses=LINKS_OF_JOB,
)
async def post_transfer_extract(
    system: SystemName,
    request: bodies.ExtractJobRequest,
    caller: TransfersWriter,
    tools: Tools,
    key: IdempotencyKey,
    trail: CurrentTrail,
) -> wire.OperationAnswer:
    """Into a directory that exists. Nothing gets there before all of it is unpacked, and none of it leads outside."""
    options = OperationOptions(compression=request.compression)
    return await _begun(tools, caller, system, Operation.EXTRACT, request, options, key, trail)


@router.delete("/rm", response_model_exclude_none=True, summary="Remove files by a job")
async def delete_transfer_rm(
    system: SystemName,
    caller: TransfersWriter,
    tools: Tools,
    key: IdempotencyKey,
    trail: CurrentTrail,
    path: Annotated[
        str,
        Query(
            min_length=1,
            max_length=4096,
            # Told only: a relative one has an error of its own.
            json_schema_extra={"pattern": r"^/[^\x00]*$"},
            description="Absolute path of a file, or of a directory that goes with all that is in it.",
        ),
    ],
    account: Annotated[str | None, Query(max_length=64)] = None,
    webhook_url: Annotated[str | None, Query(alias="webhookUrl", max_length=2048, description="Ours, as in an upload.")] = None,
) -> wire.OperationAnswer:
    """Without asking. A symbolic link goes itself; none is followed."""
    request = bodies.RemoveRequest(path=path, account=account or None, webhook_url=webhook_url)
    return await _begun(tools, caller, system, Operation.REMOVE, request, OperationOptions(), key, trail)


async def _begun(
    tools: Toolbox,
    caller: Caller,
    system: str,
    operation: Operation,
    body: bodies.OperationBody | bodies.RemoveRequest,
    options: OperationOptions,
    key: str | None,
    trail: Trail,
) -> wire.OperationAnswer:
    into = {} if isinstance(body, bodies.RemoveRequest) else {"into": body.target_path}
    asked = OperationRequest(
        operation,
        path=into.get("into", body.path),
        source=body.path if into else None,
        options=options,
        account=body.account,
        webhook_url=body.webhook_url,
    )
    async with trail.of(_ACTS[operation], system=system, path=body.path, **into) as noted:
        begun = await begin_operation(tools, caller, system, asked, repeatable_request(key, system, operation.value, body))
        noted.target = begun.transfer.id
    return wire.OperationAnswer(
        transfer_job=transfer_job(begun.transfer),
        transfer_id=begun.transfer.id,
        transfer_state=begun.transfer.state.value if begun.is_repeated else None,
    )
