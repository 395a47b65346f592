"""Brings the rules of existing buckets in line with the settings, after a restart with other ones or a change of them."""

from __future__ import annotations

import logging

from stagecoach.core.errors import StagecoachError
from stagecoach.flows.toolbox import Toolbox

log = logging.getLogger(__name__)


async def reconcile_buckets(tools: Toolbox) -> int:
    """Every known bucket whose rules differ gets today's. Returns how many still differ because the store refused."""
    fingerprint = tools.store.bucket_rules_fingerprint()
    left = 0
    for name, owner in await tools.buckets.with_other_rules(fingerprint):
        try:
            await tools.store.ensure_bucket(name)
            await tools.buckets.remember(name, owner, fingerprint, tools.now())
        except StagecoachError as error:
            left += 1
            log.warning("bucket %s keeps its old rules for now: %s", name, error.message)
    return left
