"""``/filesystem/{system}/ops``: what makes, changes and removes files. Each leaves a line in the audit log."""

from __future__ import annotations

from fastapi import APIRouter

from stagecoach.api.access import FilesWriter, Tools
from stagecoach.api.audit_trail import CurrentTrail
from stagecoach.api.firecrest.filesystem import ExactPath, shown, wire_file
from stagecoach.api.firecrest.transfer import SystemName
from stagecoach.api.problems import PROBLEM_ANSWERS
from stagecoach.core.audit_log import Act
from stagecoach.flows.archive_files import ArchiveRequest, archive_files, extract_files
from stagecoach.flows.change_files import change_mode, change_owner, make_directory, make_symlink, remove_file
from stagecoach.wire import filesystem as wire

router = APIRouter(prefix="/filesystem/{system}/ops", tags=["filesystem"], responses=PROBLEM_ANSWERS)


@router.put("/chmod", summary="Change the mode of a file")
async def put_chmod(
    system: SystemName, request: wire.ChmodRequest, caller: FilesWriter, tools: Tools, trail: CurrentTrail
) -> wire.FileAnswer:
    """Of what a symbolic link leads to."""
    path = request.exact_path
    async with trail.of(Act.FILE_MODE_CHANGED, system, path=shown(path), mode=request.mode):
        return wire.FileAnswer(output=wire_file(await change_mode(tools, caller, system, path, request.mode)))


@router.put("/chown", summary="Change the owner or group of a file")
async def put_chown(
    system: SystemName, request: wire.ChownRequest, caller: FilesWriter, tools: Tools, trail: CurrentTrail
) -> wire.FileAnswer:
    """As the user may: most may give a file to another of their own groups, and nothing else."""
    path, owner, group = request.exact_path, request.owner or "", request.group or ""
    async with trail.of(Act.FILE_OWNER_CHANGED, system, path=shown(path), owner=owner, group=group):
        changed = await change_owner(tools, caller, system, path, owner, group)
        return wire.FileAnswer(output=wire_file(changed))


@router.post("/symlink", status_code=201, summary="Make a symbolic link")
async def post_symlink(
    system: SystemName, request: wire.SymlinkRequest, caller: FilesWriter, tools: Tools, trail: CurrentTrail
) -> wire.FileAnswer:
    """`linkPath` leads to `path`, which need not exist."""
    target, link = request.exact_path, request.exact_link
    async with trail.of(Act.LINK_MADE, system, path=shown(link), leads_to=shown(target)):
        return wire.FileAnswer(output=wire_file(await make_symlink(tools, caller, system, target, link)))


@router.post("/mkdir", status_code=201, summary="Make a directory")
async def post_mkdir(
    system: SystemName, request: wire.MkdirRequest, caller: FilesWriter, tools: Tools, trail: CurrentTrail
) -> wire.FileAnswer:
    """One, or with `parent` all that are missing."""
    path = request.exact_path
    async with trail.of(Act.DIRECTORY_MADE, system, path=shown(path), parent=request.parent):
        made = await make_directory(tools, caller, system, path, parents=request.parent)
        return wire.FileAnswer(output=wire_file(made))


@router.delete("/rm", status_code=204, summary="Remove a file or directory")
async def delete_rm(system: SystemName, caller: FilesWriter, tools: Tools, path: ExactPath, trail: CurrentTrail) -> None:
    """A directory with all below it, links as links. A tree that takes longer than a request may gets 408."""
    async with trail.of(Act.FILE_REMOVED, system, path=shown(path)):
        await remove_file(tools, caller, system, path)


@router.post("/compress", status_code=204, summary="Pack files into an archive")
async def post_compress(
    system: SystemName, request: wire.CompressRequest, caller: FilesWriter, tools: Tools, trail: CurrentTrail
) -> None:
    """A tar archive on the system, whole or not at all. What takes longer than a request may gets 408."""
    wanted = ArchiveRequest(
        request.exact_path, request.exact_target, request.compression, request.dereference, request.match_pattern
    )
    async with trail.of(Act.FILES_COMPRESSED, system, path=shown(wanted.source), into=shown(wanted.target)):
        await archive_files(tools, caller, system, wanted)


@router.post("/extract", status_code=204, summary="Unpack an archive")
async def post_extract(
    system: SystemName, request: wire.ExtractRequest, caller: FilesWriter, tools: Tools, trail: CurrentTrail
) -> None:
    """Into a directory that exists. What takes longer than a request may gets 408."""
    source, target = request.exact_path, request.exact_target
    async with trail.of(Act.FILES_EXTRACTED, system, path=shown(source), into=shown(target)):
        await extract_files(tools, caller, system, source, target, request.compression)
