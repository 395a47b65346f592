"""A node's owner has it send to any S3 store whose address and key he names. No transfer belongs to it: it is a command."""

from __future__ import annotations

from collections.abc import Mapping

from stagecoach.core.access import Caller
from stagecoach.core.errors import RoadClosed
from stagecoach.core.nodes import ROOTS, CommandKind, NodeCommand, kinds_of
from stagecoach.core.paths import checked_path
from stagecoach.database.sealing import AccessKey
from stagecoach.flows.find_node import own_node
from stagecoach.flows.toolbox import Toolbox

MAX_OPEN_SENDS = 20


async def send_to_store(
    tools: Toolbox, caller: Caller, node_id: str, spec: Mapping[str, object], key: tuple[str, str]
) -> NodeCommand:
    """``spec`` as ``SendToStoreSpec`` has it. ``key`` is id and secret of the store's; it is sealed until the command has ended,
    and shown nowhere.

    Raises:
        NodeNotFound, PathRefused; LimitReached: too many are open. RoadClosed: its agent does not know how, or this service
            can seal nothing.
    """
    node, sealing = await own_node(tools, caller, node_id), tools.sealing
    path = checked_path(str(spec["sourcePath"]), ROOTS)
    if sealing is None:
        raise RoadClosed("This service has no key to seal with (nodes.sealing_key), so it takes none of a store's.")
    if CommandKind.SEND_TO_STORE not in kinds_of(node.kinds):
        raise RoadClosed("The node's agent does not know how to send to a store, or has not been heard of yet; update it.")
    command_id = tools.new_id()
    command = NodeCommand(
        id=command_id,
        node_id=node.id,
        number=0,
        kind=CommandKind.SEND_TO_STORE,
        name=f"send-{command_id}",
        owner=caller.username,
        created_at=tools.now(),
        spec={**spec, "sourcePath": path},
    )
    added = await tools.node_commands.add(command, MAX_OPEN_SENDS, sealing.seal(AccessKey(*key)))
    tools.node_calls.wake(node.id)
    return added
