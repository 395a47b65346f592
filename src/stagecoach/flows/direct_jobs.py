"""The two jobs of the direct road as commands of nodes' queues: the leg's sends, the relay's brings to its place."""

from __future__ import annotations

import posixpath

from stagecoach.core.errors import SubmissionRefused
from stagecoach.core.nodes import JOINS_PARTS, CommandKind, node_id_of
from stagecoach.core.transfer import Transfer
from stagecoach.database.node_commands import NodeCommands
from stagecoach.database.nodes import Nodes
from stagecoach.database.transfers import Transfers


async def job_of_leg(
    commands: NodeCommands, nodes: Nodes, transfers: Transfers, leg: Transfer
) -> tuple[CommandKind, dict[str, object], bytes]:
    """Kind, spec and sealed key of the command that sends. Raises SubmissionRefused: nobody receives (any more)."""
    relay = await transfers.get(leg.relay_of or "")
    node = await nodes.get(node_id_of(relay.system) or "") if relay is not None else None
    if relay is None or node is None or node.revoked_at is not None or not node.receiver:
        raise SubmissionRefused("The node that was to receive tells no address at which others reach it any more.")
    opened = await commands.named(node.id, relay.owner, receive_name(leg))
    sealed = await commands.sealed(node.id, opened[-1].id) if opened else None
    if sealed is None:
        raise SubmissionRefused("The node that was to receive has closed its folder.")
    is_directory = leg.archive is not None
    spec: dict[str, object] = {
        "transferId": relay.id,
        "sourcePath": leg.real_path,
        "isDirectory": is_directory,
        "endpoint": {
            "host": node.receiver["host"],
            "port": node.receiver["port"],
            "certificateSha256": node.receiver["certificate_sha256"],
        },
        "bucket": "data",
        "folder": "",
        "fileName": None if is_directory else posixpath.basename(relay.real_path),
        "rateLimitBytesPerSecond": leg.rate_limit_bytes_per_second,
        "inParts": JOINS_PARTS in node.kinds,
    }
    return CommandKind.SEND, spec, sealed


def job_of_relay(relay: Transfer) -> tuple[CommandKind, dict[str, object], None]:
    """Of the command that moves to its place what has arrived."""
    spec: dict[str, object] = {
        "transferId": relay.id,
        "targetPath": relay.real_path,
        "isDirectory": relay.archive is not None,
        "sizeBytes": relay.size_bytes or 0,
        "files": relay.file_count or 0,
    }
    return CommandKind.PLACE, spec, None


def receive_name(leg: Transfer) -> str:
    """Of the destination's ``receive`` for this attempt of ``leg``."""
    return f"receive-{leg.relay_of}-{leg.attempt}"
