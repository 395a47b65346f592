"""Notes what an agent says of a command: that it has begun it, that it has ended it. Repeating either is fine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stagecoach.core.errors import InstanceDiffers
from stagecoach.core.nodes import Node
from stagecoach.database.network_checks import NetworkCheck
from stagecoach.flows.bound_arrival import CommandBounds, bounds_now
from stagecoach.flows.toolbox import Toolbox


async def note_start(tools: Toolbox, node: Node, instance_id: str, command_id: str, attempt: int) -> None:
    """Raises NodeNotFound, Conflict: the agent is to stop it. InstanceDiffers."""
    _require_instance(node, instance_id)
    lease_until = tools.soon(tools.settings.nodes.lease_seconds)
    await tools.node_commands.note_start(node.id, command_id, attempt, tools.now(), lease_until)
    tools.nudge_worker()


async def note_progress(
    tools: Toolbox,
    node: Node,
    instance_id: str,
    command_id: str,
    attempt: int,
    progress: Mapping[str, object],
    check: Mapping[str, Any] | None,
) -> CommandBounds:
    """What holds of the command now. ``progress`` as a report has it; ``check``, what the agent found of the way, is kept
    with the transfer.

    Raises as :func:`note_start`.
    """
    _require_instance(node, instance_id)
    now = tools.now()
    found = NetworkCheck(now, check) if check is not None else None
    command = await tools.node_commands.note_progress(node.id, command_id, attempt, progress, found, now)
    tools.nudge_worker()
    return await bounds_now(tools, command)


async def note_end(
    tools: Toolbox,
    node: Node,
    instance_id: str,
    command_id: str,
    attempt: int,
    *,
    exit_code: int,
    code: str | None,
    message: str | None,
    result: Mapping[str, Any] | None,
) -> None:
    """Raises as :func:`note_start`; nothing is said against the end of what had ended."""
    _require_instance(node, instance_id)
    told = {"exit_code": exit_code, "code": code, "message": message, "result": dict(result) if result is not None else None}
    await tools.node_commands.note_end(node.id, command_id, attempt, told, tools.now())
    # There is room for the next one.
    tools.node_calls.wake(node.id)
    tools.nudge_worker()


def _require_instance(node: Node, instance_id: str) -> None:
    if instance_id != node.instance_id:
        raise InstanceDiffers("Another agent has enrolled as this node.")
