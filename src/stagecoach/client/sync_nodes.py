"""Data transfer nodes for programs that are not asynchronous: the calls of ``client/nodes``, each waited for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any, TypeVar

from stagecoach.client.node_sends import OnCommand, Store
from stagecoach.client.nodes import CHECK_WAIT_SECONDS, NodeQuestions
from stagecoach.wire.nodes import (
    CommandPage,
    CommandView,
    GrantList,
    GrantView,
    HeldGrantList,
    HeldGrantView,
    InvitationAnswer,
    NodeList,
    NodeView,
    RegisteredNodeAnswer,
)

T = TypeVar("T")


class SyncNodeQuestions(ABC):
    """Every method raises ServiceError for a problem that the service answers."""

    _client: NodeQuestions

    def nodes(self) -> NodeList:
        """One's own, newest first."""
        return self._run(self._client.nodes())

    def node(self, node_id: str) -> NodeView:
        """One's own, or one that one was granted to send to."""
        return self._run(self._client.node(node_id))

    def find_node(self, name_or_id: str) -> NodeView:
        """By its id, or by its name among one's own and those that one was granted to send to."""
        return self._run(self._client.find_node(name_or_id))

    def find_system(self, system: str) -> str:
        """The name that transfers take, of ``node:NAME`` or ``node:ID``."""
        return self._run(self._client.find_system(system))

    def register_node(self, name: str) -> RegisteredNodeAnswer:
        """A new one, with its enrolment token, shown only now."""
        return self._run(self._client.register_node(name))

    def renew_enrolment(self, node_id: str) -> RegisteredNodeAnswer:
        """Another enrolment token."""
        return self._run(self._client.renew_enrolment(node_id))

    def change_node(self, node_id: str, *, name: str | None = None, parallel: int | None = None) -> NodeView:
        """Its name, or how many commands it carries out at once."""
        return self._run(self._client.change_node(node_id, name=name, parallel=parallel))

    def revoke_node(self, node_id: str) -> None:
        """At once."""
        self._run(self._client.revoke_node(node_id))

    def node_commands(
        self, node_id: str, *, states: Sequence[str] = (), limit: int = 50, after: str | None = None
    ) -> CommandPage:
        """The last of its queue first, then what has ended."""
        return self._run(self._client.node_commands(node_id, states=states, limit=limit, after=after))

    def node_command(self, node_id: str, command_id: str) -> CommandView:
        """One of a node's."""
        return self._run(self._client.node_command(node_id, command_id))

    def check_network(self, node_id: str, *, wait_seconds: float = CHECK_WAIT_SECONDS) -> CommandView:
        """Have a node look at its ways to the service and the store, and wait for what it finds."""
        return self._run(self._client.check_network(node_id, wait_seconds=wait_seconds))

    def order_node_commands(self, node_id: str, command_ids: Sequence[str]) -> None:
        """Commands that wait come in this order."""
        self._run(self._client.order_node_commands(node_id, command_ids))

    def remove_node_command(self, node_id: str, command_id: str) -> None:
        """Cancelled, or not listed any more."""
        self._run(self._client.remove_node_command(node_id, command_id))

    def send_to_store(
        self,
        node_id: str,
        source_path: str,
        store: Store,
        *,
        is_directory: bool = False,
        file_name: str | None = None,
        rate_limit: int | None = None,
    ) -> CommandView:
        """Have a node of one's own send to any S3 store; as it stands in the queue."""
        options: dict[str, Any] = {"is_directory": is_directory, "file_name": file_name, "rate_limit": rate_limit}
        return self._run(self._client.send_to_store(node_id, source_path, store, **options))

    def node_sends(self, node_id: str, *, limit: int = 50) -> CommandPage:
        """What a node sends and has sent to stores."""
        return self._run(self._client.node_sends(node_id, limit=limit))

    def wait_for_command(self, node_id: str, command_id: str, on_look: OnCommand | None = None) -> CommandView:
        """Until it has ended, well or not."""
        return self._run(self._client.wait_for_command(node_id, command_id, on_look))

    def grants(self, node_id: str) -> GrantList:
        """Who may send to a node of one's own, and open invitations."""
        return self._run(self._client.grants(node_id))

    def held_grants(self) -> HeldGrantList:
        """What one was granted oneself."""
        return self._run(self._client.held_grants())

    def add_grant(
        self,
        node_id: str,
        user: str,
        *,
        folder: str = "/",
        max_bytes: int | None = None,
        expires_at: datetime | None = None,
        label: str | None = None,
    ) -> GrantView:
        """Allow somebody to send below a folder, so many bytes, until a date (with a zone)."""
        options: dict[str, Any] = {"folder": folder, "max_bytes": max_bytes, "expires_at": expires_at, "label": label}
        return self._run(self._client.add_grant(node_id, user, **options))

    def revoke_grant(self, node_id: str, grant_id: str) -> None:
        """A grant, or an invitation."""
        self._run(self._client.revoke_grant(node_id, grant_id))

    def invite(
        self,
        node_id: str,
        *,
        folder: str = "/",
        max_bytes: int | None = None,
        expires_at: datetime | None = None,
        label: str | None = None,
    ) -> InvitationAnswer:
        """The same for whoever redeems it first."""
        options: dict[str, Any] = {"folder": folder, "max_bytes": max_bytes, "expires_at": expires_at, "label": label}
        return self._run(self._client.invite(node_id, **options))

    def redeem_invitation(self, token: str) -> HeldGrantView:
        """Once."""
        return self._run(self._client.redeem_invitation(token))

    @abstractmethod
    def _run(self, asked: Coroutine[Any, Any, T]) -> T:
        """Waits for the answer."""
