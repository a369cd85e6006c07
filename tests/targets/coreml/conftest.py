"""Lets the test of completeness see the case tables of its neighbours, and silences what coremltools leaves behind."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items):
    # coremltools leaves its temporary folders to the garbage collector.
    for item in items:
        if "coreml" in item.nodeid:
            item.add_marker(pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"))
