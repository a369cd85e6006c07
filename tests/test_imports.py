"""Imports point one way, backends never import each other, and heavy packages stay inside functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOMS = ("calibration", "device_profiles", "exporters", "targets")
BACKENDS = ("onnxruntime", "tensorrt", "coreml", "snpe", "tflite_micro")
VENDOR = {"coremltools", "onnxruntime_qnn", "tensorrt", "tensorrt_rtx", "ai_edge_litert", "tflite_micro", "tensorflow",
          "tf_keras", "ethosu", "serial", "pynvml", "matplotlib", "transformers"}  # fmt: skip

#: A module's layer is that of the longest prefix here; a module imports its own layer and those below it.
LAYERS = {
    "edgedeploy": 5,  # the flow and the face: pipeline, bundle, commands …
    "edgedeploy.commands": 6,
    "edgedeploy.cli": 6,
    "edgedeploy.__main__": 7,
    "edgedeploy.exporters": 3,
    "edgedeploy.targets": 3,
    "edgedeploy.calibration": 2,
    "edgedeploy.device_profiles": 1,
    "edgedeploy.graph": 1,
    "edgedeploy.model": 1,
    "edgedeploy.quality": 0,  # measures that every comparison shares
    "edgedeploy.compare": 0,
    "edgedeploy.judge": 2,
    "edgedeploy.interfaces": 2,
    "edgedeploy.backends": 2,
    "edgedeploy.sandbox": 1,
    "edgedeploy.backend_options": 2,
    "edgedeploy.errors": 0,
    "edgedeploy.exhausted": 0,
    "edgedeploy.evidence": 0,
    "edgedeploy.progress": 0,
    "edgedeploy.states": 0,
    "edgedeploy.tensors": 0,
    "edgedeploy.untrusted": 0,
    "edgedeploy.plain_text": 0,
    "edgedeploy.precision": 0,
    "edgedeploy.version": 0,
}


def modules(repository: Path) -> dict[str, Path]:
    found = {}
    for room in ("edgedeploy", *ROOMS):
        for path in (repository / room).rglob("*.py"):
            parts = path.relative_to(repository).with_suffix("").parts
            name = ".".join(parts if parts[0] == "edgedeploy" else ("edgedeploy", *parts))
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, *, top_only: bool, typing_too: bool = False) -> set[str]:
    """Modules that a file imports; those under TYPE_CHECKING only where asked for."""
    found: set[str] = set()

    def walk(nodes, inside_function):
        for node in nodes:
            if isinstance(node, ast.Import) and not (top_only and inside_function):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not (top_only and inside_function):
                found.add(node.module)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not typing_too:
                continue
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            walk(ast.iter_child_nodes(node), inside_function or function)

    walk(ast.parse(path.read_text()).body, False)
    return found


def layer(name: str) -> int:
    return max(((len(prefix), number) for prefix, number in LAYERS.items() if (name + ".").startswith(prefix + ".")))[1]


def test_imports_point_one_way(repository):
    wrong = [
        f"{name} imports {other}"
        for name, path in modules(repository).items()
        for other in imports(path, top_only=False)
        if other.startswith("edgedeploy") and layer(other) > layer(name)
    ]
    assert not wrong


def test_backends_never_import_each_other(repository):
    wrong = []
    for name, path in modules(repository).items():
        own = next(
            (
                item
                for item in BACKENDS
                if name.startswith((f"edgedeploy.exporters.{item}", f"edgedeploy.targets.{item}"))
            ),
            None,
        )
        if own is None:
            continue
        others = tuple(
            f"edgedeploy.{room}.{item}" for room in ("exporters", "targets") for item in BACKENDS if item != own
        )
        wrong += [f"{name} imports {other}" for other in imports(path, top_only=False) if other.startswith(others)]
    assert not wrong


def test_there_are_no_circles_at_import_time(repository):
    known = modules(repository)
    graph = {name: {item for item in imports(path, top_only=True) if item in known} for name, path in known.items()}
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, f"circle: {' → '.join((*trail, name))}"
        if name in state:
            return
        state[name] = 1
        for other in sorted(graph[name]):
            visit(other, (*trail, name))
        state[name] = 2

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("package", sorted(VENDOR | {"torch"}))
def test_heavy_packages_are_imported_inside_functions(repository, package):
    allowed = {"torch": ("edgedeploy.model.", "edgedeploy.targets.coreml.", "edgedeploy.exporters.coreml.")}
    wrong = [
        name
        for name, path in modules(repository).items()
        if any(item.split(".")[0] == package for item in imports(path, top_only=True))
        and not name.startswith(allowed.get(package, ("-",)))
    ]
    assert not wrong


def test_no_bare_room_names(repository):
    for folder in ("edgedeploy", *ROOMS, "tests", "benchmarks", "examples"):
        for path in (repository / folder).rglob("*.py"):
            bare = {item.split(".")[0] for item in imports(path, top_only=False, typing_too=True)} & set(ROOMS)
            assert not bare, f"{path} imports {bare}"
