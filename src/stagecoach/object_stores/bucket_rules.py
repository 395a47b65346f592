"""The rules a bucket of ours must have, and whether those it has are the same. Pure: asks no store.

Rules are recognised by their ids; those an administrator added are left as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stagecoach.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import CORSRuleUnionTypeDef, LifecycleRuleUnionTypeDef

EXPIRE_RULE_ID = "stagecoach-expire-objects"
ABORT_RULE_ID = "stagecoach-abort-multiparts"
CORS_RULE_ID = "stagecoach-browsers"
_CORS_METHODS = ("GET", "HEAD", "POST", "PUT")
_CORS_MAX_AGE_SECONDS = 3600


def lifecycle_rules(settings: S3Settings) -> list[LifecycleRuleUnionTypeDef]:
    """Two rules rather than one with two actions: some stores keep only one action of a rule."""
    life = settings.bucket_lifecycle_configuration
    return [
        {"ID": EXPIRE_RULE_ID, "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": life.days}},
        {
            "ID": ABORT_RULE_ID,
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": life.abort_incomplete_multipart_days},
        },
    ]


def cors_rules(settings: S3Settings) -> list[CORSRuleUnionTypeDef]:
    """None at all without origins: no page of any web site may then reach the bucket."""
    if not settings.cors_origins:
        return []
    return [
        {
            "ID": CORS_RULE_ID,
            "AllowedOrigins": list(settings.cors_origins),
            "AllowedMethods": list(_CORS_METHODS),
            "AllowedHeaders": ["*"],
            # A page can complete an upload only if it may read the parts' ETags.
            "ExposeHeaders": ["ETag"],
            "MaxAgeSeconds": _CORS_MAX_AGE_SECONDS,
        }
    ]


def fingerprint(settings: S3Settings) -> str:
    """Changes when any rule made from the settings would."""
    rules = [lifecycle_rules(settings), cors_rules(settings)]
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:16]


def merged_lifecycle(
    there: Sequence[Mapping[str, Any]], wanted: Sequence[LifecycleRuleUnionTypeDef]
) -> list[LifecycleRuleUnionTypeDef] | None:
    """What to put, or None when all is as wanted."""
    merged = _merged(there, wanted, (EXPIRE_RULE_ID, ABORT_RULE_ID), _plain_lifecycle)
    return None if merged is None else [_with_filter(rule) for rule in merged]


def merged_cors(there: Sequence[Mapping[str, Any]], wanted: Sequence[CORSRuleUnionTypeDef]) -> list[CORSRuleUnionTypeDef] | None:
    """What to put, or None when all is as wanted. Empty: only our own rule is there, and is to be removed."""
    return _merged(there, wanted, (CORS_RULE_ID,), _plain_cors)


def _merged(
    there: Sequence[Mapping[str, Any]],
    wanted: Sequence[Any],
    ids: Sequence[str],
    plain: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> list[Any] | None:
    ours = [plain(rule) for rule in there if rule.get("ID") in ids]
    aims = [plain(rule) for rule in wanted]
    if sorted(ours, key=str) == sorted(aims, key=str):
        return None
    return [*(rule for rule in there if rule.get("ID") not in ids), *wanted]


def _plain_lifecycle(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The same for the same rule from any store: RGW gives back ``Prefix`` where ``Filter`` was put, AWS adds to it."""
    return {
        "id": rule.get("ID"),
        "status": rule.get("Status"),
        "prefix": (rule.get("Filter") or {}).get("Prefix", rule.get("Prefix")) or "",
        "days": (rule.get("Expiration") or {}).get("Days"),
        "abort": (rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation"),
    }


def _with_filter(rule: Any) -> Any:
    """Stores refuse a configuration that mixes rules of the old form (``Prefix``) with the new one (``Filter``)."""
    if "Prefix" not in rule or "Filter" in rule:
        return rule
    return {**{name: value for name, value in rule.items() if name != "Prefix"}, "Filter": {"Prefix": rule["Prefix"]}}


def _plain_cors(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": rule.get("ID"),
        "origins": sorted(rule.get("AllowedOrigins") or ()),
        "methods": sorted(rule.get("AllowedMethods") or ()),
        "headers": sorted(rule.get("AllowedHeaders") or ()),
        "expose": sorted(rule.get("ExposeHeaders") or ()),
        "age": rule.get("MaxAgeSeconds"),
    }
