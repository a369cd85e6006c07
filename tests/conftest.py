"""Rules for the whole run: which package is tested, and when a skipped test counts as a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One thread a worker: the tests run side by side, and results must not depend on how many cores there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Nothing fails for the speed of the machine or its load.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn a skip into a failure where EDGEDEPLOY_NO_SKIPS is set, hardware tests aside."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("EDGEDEPLOY_NO_SKIPS") and "hardware" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"skipped where no test may be: {report.longrepr}"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that the tests lie in."""
    return Path(__file__).parents[1]
