import pytest


def pytest_collection_modifyitems(items):
    # coremltools leaves its temporary folders to the garbage collector.
    for item in items:
        if "coreml" in item.nodeid:
            item.add_marker(pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"))
