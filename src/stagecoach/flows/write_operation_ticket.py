"""Leaves an operation's ticket in its job's directory: nothing of it is secret, and nothing in it ever ends."""

from __future__ import annotations

from stagecoach.core import names
from stagecoach.core.job_scripts import TICKET_FILE
from stagecoach.core.operation_tickets import build_operation_ticket
from stagecoach.core.paths import expanded_roots
from stagecoach.core.transfer import Transfer
from stagecoach.flows.look_at_files import resolved_roots, root_of
from stagecoach.flows.toolbox import Toolbox


async def write_operation_ticket(tools: Toolbox, transfer: Transfer) -> None:
    """A file of the user, mode 0600; the job's directory exists."""
    system, owner = tools.system(transfer.system), transfer.owner
    roots = expanded_roots(system.settings.roots, owner)
    source = transfer.real_source_path
    content = build_operation_ticket(
        transfer,
        root=await root_of(system, owner, transfer.real_path),
        source_root=None if source is None else await root_of(system, owner, source),
        roots=[*roots, *await resolved_roots(system, owner, roots)],
        address=_address(tools, transfer),
    )
    await system.files.write_file(owner, f"{transfer.job_directory}/{TICKET_FILE}", content, 0o600)


def _address(tools: Toolbox, transfer: Transfer) -> str:
    """By which an audit knows the job's directory for one of this service: without the signature, which would be a secret."""
    bucket = names.bucket_name(tools.settings.s3.bucket_prefix, transfer.owner)
    key = names.ticket_key(transfer.id)
    url = tools.store.presign("GET", bucket, key, audience="system", ttl_seconds=60, system=transfer.system)
    return url.partition("?")[0]
