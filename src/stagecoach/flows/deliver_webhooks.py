"""Delivers what the webhooks are to be told: at least once, in each transfer's order, again and again while it fails.

A loop of its own beside the worker. Any number of them may run on one database; one may die anywhere, and what it had
taken is taken again when its lease runs out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import timedelta

import httpx

from stagecoach.core.errors import WebhookRefused
from stagecoach.core.webhooks import signed_headers, wait_seconds, webhook_host, webhook_target
from stagecoach.database.webhook_deliveries import Delivery
from stagecoach.flows.post_webhook import NotPosted, Resolve, open_client, post_webhook, resolve
from stagecoach.flows.toolbox import Toolbox

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
AT_ONCE = 32
# So that a receiver that hangs keeps no room from the others.
AT_ONCE_PER_HOST = 8
LEASE_MARGIN_SECONDS = 30.0
STOP_SECONDS = 10
KEPT_DAYS = 7
FORGET_SECONDS = 600.0
HTTP_GONE = 410


class Deliverer:
    """One of them. ``resolve`` finds a host's addresses."""

    def __init__(self, tools: Toolbox, http: httpx.AsyncClient, resolve: Resolve = resolve) -> None:
        self._tools = tools
        self._http = http
        self._resolve = resolve
        self._under_way: set[asyncio.Task[None]] = set()
        self._hosts_under_way: Counter[str] = Counter()
        self._forget_at = tools.now()

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; what is being posted then has a moment to end."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                try:
                    taken = await self.round()
                except Exception:
                    # The database may be away for a while; the round is tried again, and the log says so each time.
                    log.exception("a round of the webhooks failed")
                    taken = 0
                if not taken:
                    await asyncio.wait({stopped}, timeout=POLL_SECONDS)
        finally:
            stopped.cancel()
            if self._under_way:
                _, late = await asyncio.wait(self._under_way, timeout=STOP_SECONDS)
                for task in late:
                    task.cancel()

    async def round(self) -> int:
        """Take what is due and set it going; returns how many messages were taken."""
        tools, now = self._tools, self._tools.now()
        if now >= self._forget_at:
            await tools.deliveries.forget(now - timedelta(days=KEPT_DAYS))
            self._forget_at = now + timedelta(seconds=FORGET_SECONDS)
        room = AT_ONCE - len(self._under_way)
        if room <= 0:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            return 0
        lease = tools.settings.webhooks.timeout_seconds + LEASE_MARGIN_SECONDS
        full = [host for host, count in self._hosts_under_way.items() if count >= AT_ONCE_PER_HOST]
        # No more than one host may have at once: all that is taken may be of one.
        taken = await tools.deliveries.claim_due(now, lease, min(room, AT_ONCE_PER_HOST), without_hosts=full)
        for delivery in taken:
            host = webhook_host(delivery.url)
            self._hosts_under_way[host] += 1
            task = asyncio.create_task(self._deliver(delivery, host))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return len(taken)

    async def settle(self) -> None:
        """Wait for all that is being posted (tests)."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _deliver(self, delivery: Delivery, host: str) -> None:
        try:
            await self._try(delivery)
        except Exception:
            # The database, most likely. The lease runs out by itself, and the receiver knows the message by its id.
            log.exception("webhook message %s: what became of it could not be noted", delivery.id)
        finally:
            self._hosts_under_way[host] -= 1

    async def _try(self, delivery: Delivery) -> None:
        tools, webhooks = self._tools, self._tools.settings.webhooks
        try:
            # Once more: the settings may have changed since the transfer was begun.
            target = webhook_target(delivery.url, webhooks.allowed_hosts, allow_http=webhooks.allow_http)
        except WebhookRefused as refused:
            await self._give_up(delivery, refused.message)
            return
        body = delivery.body.encode()
        secret = webhooks.signing_secret.get_secret_value()
        headers = signed_headers(secret, delivery.id, int(tools.now().timestamp()), body)
        try:
            status = await post_webhook(self._http, self._resolve, target, delivery.url, headers, body, webhooks.timeout_seconds)
        except NotPosted as error:
            trouble = str(error)
        else:
            if 200 <= status < 300:
                await tools.deliveries.delivered(delivery, tools.now())
                return
            if status == HTTP_GONE:
                log.info("webhook message %s: the receiver wants no more", delivery.id)
                await tools.deliveries.end(delivery)
                return
            trouble = f"{target.authority} answered HTTP {status}."
        if delivery.tries >= webhooks.max_tries:
            await self._give_up(delivery, f"Given up after {delivery.tries} tries: {trouble}")
            return
        wait = wait_seconds(delivery.tries, tools.random_bits(24) / 2**24)
        log.warning("webhook message %s: %s Trying again in %.0f s.", delivery.id, trouble, wait)
        await tools.deliveries.put_off(delivery, tools.soon(wait), trouble)

    async def _give_up(self, delivery: Delivery, trouble: str) -> None:
        log.warning("webhook message %s: %s", delivery.id, trouble)
        await self._tools.deliveries.give_up(delivery, trouble)


async def deliver_webhooks(tools: Toolbox, stop: asyncio.Event) -> None:
    """Until ``stop``; at once where the settings allow no webhooks."""
    if not tools.settings.webhooks.is_on:
        return
    async with open_client() as http:
        await Deliverer(tools, http).run(stop)
