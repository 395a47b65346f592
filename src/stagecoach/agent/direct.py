"""The direct road as the agent travels it: sends to other nodes, is sent to, and brings to its place what has arrived."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from stagecoach.agent.arrivals import Arrivals, arrival
from stagecoach.agent.arrived_bytes import Arrived
from stagecoach.agent.command_secrets import CommandSecrets
from stagecoach.agent.journal import Ending, Entry
from stagecoach.agent.moving import KEEP_UNFINISHED_SECONDS
from stagecoach.agent.one_sending import Standing
from stagecoach.agent.part_digests import KeptDigests
from stagecoach.agent.parts import PartRule
from stagecoach.agent.placing import Placed, place
from stagecoach.agent.rclone_at_hand import RcloneAtHand
from stagecoach.agent.rclone_program import usable_rclone
from stagecoach.agent.rclone_progress import Progress
from stagecoach.agent.receiver_address import ReceiverAddress
from stagecoach.agent.receiving import Receiving
from stagecoach.agent.sending import Sender
from stagecoach.agent.state_directory import StateDirectory
from stagecoach.agent.stopping import Work
from stagecoach.agent.threads import in_thread
from stagecoach.core.errors import SettingsError, StagecoachError
from stagecoach.core.nodes import JOINS_PARTS
from stagecoach.mover.stagecoach_mover import Failed
from stagecoach.wire.agent import ProgressAnswer, Receiver
from stagecoach.wire.direct_commands import PlaceSpec

_log = logging.getLogger(__name__)

RECEIVE, SEND, PLACE, SEND_TO_STORE = "receive", "send", "place", "send_to_store"
_MESSAGE_CHARACTERS = 1000


class DirectRoad:
    """Of one node; receiver and rclone run between ``start`` and ``stop``, on the agent's main thread."""

    def __init__(
        self,
        state: StateDirectory,
        send: str,
        receive: str,
        address: ReceiverAddress | None,
        *,
        tell: Callable[[str, Standing], None],
        rule: PartRule | None = None,
        least_free_bytes: int | None = None,
    ) -> None:
        self.secrets = CommandSecrets(state.path / "secrets")
        self.arrivals = Arrivals(receive, state.path / "arrivals")
        self.rclone = RcloneAtHand(state.path / "rclone", roots=[Path(send)])
        self.receiving = Receiving(
            address,
            directory=state.path / "receiver",
            receive=Path(receive),
            arrivals=self.arrivals,
            tell=lambda command_id, arrived: tell(command_id, _standing_of(arrived)),
            least_free_bytes=least_free_bytes,
        )
        self._sent_parts = KeptDigests(state.path / "sent-parts")
        self._sender = Sender(Path(send), state.path / "certificates", self._sent_parts, self.rclone, tell, rule=rule)
        self._can_send = False

    @property
    def kinds(self) -> list[str]:
        """Of commands that can be carried out here."""
        sends = [SEND, SEND_TO_STORE] if self._can_send else []
        return [PLACE, JOINS_PARTS, *sends, *([RECEIVE] if self.receiving.is_offered else [])]

    @property
    def receiver(self) -> Receiver | None:
        """Where others reach this node, while they can."""
        return self.receiving.told

    def forget_old(self, now: float) -> None:
        """What was kept for going on with transfers that nobody went on with. ``now`` in epoch seconds. Raises OSError."""
        self._sent_parts.forget_older_than(KEEP_UNFINISHED_SECONDS, now)

    def health(self) -> list[str]:
        """Sentences for the node's owner."""
        return self.receiving.health()

    async def start(self) -> None:
        """The receiver, where there is to be one; rclone for sending starts when it is wanted."""
        try:
            await usable_rclone()
            self._can_send = True
        except SettingsError as missing:
            _log.warning("This node does not send directly: %s", missing.message)
        await self.receiving.start()

    async def stop(self) -> None:
        """Both. May be called twice."""
        await asyncio.gather(self.receiving.stop(), self.rclone.stop())

    def heed(self, command_id: str, answer: ProgressAnswer) -> None:
        """What the service says of a command that runs."""
        self.receiving.allow(command_id, answer.max_bytes)
        self._sender.caps.change(command_id, answer.rate_limit_bytes_per_second)

    def knows(self, kind: str) -> bool:
        """Whether it is one of the direct road's."""
        return kind in {RECEIVE, SEND, PLACE, SEND_TO_STORE}

    async def run(self, entry: Entry, work: Work) -> Ending:
        """One command of a kind that is known here. Raises OSError."""
        try:
            if entry.kind == PLACE:
                return await self._place(entry, work)
            secret = self.secrets.of(entry.id)
            run = {RECEIVE: self.receiving.run, SEND: self._sender.send, SEND_TO_STORE: self._sender.send_to_store}[entry.kind]
            return await run(entry, work, secret)
        except Failed as failed:
            return Ending(1, failed.code, failed.message[:_MESSAGE_CHARACTERS])
        except StagecoachError as error:
            return Ending(1, _CODES.get(error.code, error.code), error.message[:_MESSAGE_CHARACTERS])
        except ValidationError as error:
            places = ", ".join(sorted({".".join(map(str, one["loc"])) for one in error.errors()}))[:200]
            return Ending(1, "command_unsupported", f"The command is not understood ({places}); update the agent.")

    async def discard(self, transfer_id: str, target_path: str | None = None) -> None:
        """What of the transfer is hidden here. Raises Failed, OSError."""
        await in_thread(lambda: self.arrivals.discard(transfer_id, target_path), "stagecoach-discard")

    async def _place(self, entry: Entry, work: Work) -> Ending:
        spec = PlaceSpec.model_validate(entry.spec)
        one = arrival(spec.transfer_id, spec.target_path, is_directory=spec.is_directory)
        work.started()
        # Not to be stopped in the middle: what is under way then ends well.
        expected = Placed(spec.size_bytes, spec.files)
        placed = await in_thread(lambda: place(self.arrivals, one, expected), "stagecoach-place")
        return Ending(
            0, None, f"{placed.files} files are at their place.", {"sizeBytes": placed.size_bytes, "files": placed.files}
        )


def _standing_of(arrived: Arrived) -> Standing:
    return Standing(Progress("running", arrived.size_bytes, arrived.size_bytes, 0, 0))


# As the service and people know them.
_CODES = {
    "rclone_unavailable": "interrupted",
    "file_missing": "source_missing",
    "not_a_file": "source_missing",
    "settings_wrong": "command_unsupported",
}
