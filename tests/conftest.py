"""What is real is one and the same for all tests that use it: they run one after another, in one process.

What makes all that it needs by itself, and the unit tests, run beside them.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

UNIT_TESTS = "tests/unit/"
OF_NODES = ("tests/e2e/nodes/", "tests/e2e/recovery/", "tests/integration/test_testbed_nodes.py")
# Of these no test may ask for the testbed, nor for a database of its PostgreSQL.
WITHOUT_TESTBED = (
    "tests/conformance/",
    "tests/contract/test_embedded_store.py",
    "tests/contract/test_local_",
    "tests/contract/test_memory_store.py",
    "tests/contract/test_s3_store_on_moto.py",
    "tests/contract/test_s3_store_on_rclone.py",
    "tests/e2e/portal/test_accessibility.py",
    "tests/e2e/portal/test_nodes.py",
    "tests/e2e/portal/test_upload.py",
    "tests/integration/agent/",
    "tests/integration/firecrest/",
    "tests/integration/test_agent.py",
    "tests/integration/test_login.py",
    "tests/integration/test_mover_on_rclone.py",
    "tests/integration/test_token_issuers.py",
    "tests/integration/test_workflows.py",
    "tests/simulation/",
)
OF_TESTBED = {"testbed", "url"}


def _needs_testbed(nodeid: str) -> bool:
    path, _, parameters = nodeid.partition("[")
    return not path.startswith((UNIT_TESTS, *WITHOUT_TESTBED)) and "embedded" not in parameters


class OneTestbed(LoadScopeScheduling):
    """One process runs all that needs the testbed, one all that needs that of the nodes, and whichever has time the rest."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(UNIT_TESTS):
            return nodeid
        if nodeid.startswith(OF_NODES):
            return "testbed with nodes"
        return "testbed" if _needs_testbed(nodeid) else nodeid.partition("::")[0]


def pytest_configure() -> None:
    """Ctrl-C is not ignored in what tests start, though a shell ignores it in the background and xdist in its processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneTestbed:
    """Asked by xdist (``-n 3``)."""
    return OneTestbed(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first: it mostly waits for a cluster, and leaves the processors to the others."""
    for item in items:
        asked = OF_TESTBED.intersection(getattr(item, "fixturenames", ()))
        assert not asked or item.nodeid.startswith(UNIT_TESTS) or _needs_testbed(item.nodeid), (item.nodeid, asked)
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[bool, bool, bool]:
    nodeid = item.nodeid
    return not _needs_testbed(nodeid), nodeid.startswith(OF_NODES), nodeid.startswith(UNIT_TESTS)
