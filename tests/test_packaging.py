"""The package list, the installed package and the rule against bare room names."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import edgedeploy

ROOMS = ("calibration", "device_profiles", "exporters", "targets")


def _pyproject(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def test_packages_in_pyproject_are_those_on_disk(repository):
    folders = [repository / name for name in ("edgedeploy", *ROOMS)]
    found = {
        ".".join(path.parent.relative_to(repository).parts)
        for folder in folders
        for path in folder.rglob("__init__.py")
    }
    expected = {name if name.startswith("edgedeploy") else f"edgedeploy.{name}" for name in found}
    assert set(_pyproject(repository)["tool"]["setuptools"]["packages"]) == expected


def test_every_folder_with_modules_is_a_package(repository):
    for room in ("edgedeploy", *ROOMS):
        for path in (repository / room).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} has modules but no __init__.py"


def test_the_installed_package_is_under_test():
    assert importlib.metadata.version("edgedeploy")
    assert Path(edgedeploy.__file__).name == "__init__.py"


def test_profiles_and_templates_are_installed(repository):
    distribution = importlib.metadata.distribution("edgedeploy")
    files = {str(path) for path in distribution.files or ()}
    if any(path.startswith("__editable__") for path in files):
        return  # a developer's editable install reads the checkout itself
    data = [
        path
        for room in ("edgedeploy", *ROOMS)
        for path in (repository / room).rglob("*")
        if path.suffix in {".toml", ".j2", ".json"} or path.name == "py.typed"
    ]
    assert data
    for path in data:
        inside = path.relative_to(repository)
        name = inside if inside.parts[0] == "edgedeploy" else Path("edgedeploy") / inside
        assert str(name) in files, f"{inside} is not in the wheel"


def test_lint_forbids_bare_room_names(repository, tmp_path):
    banned = _pyproject(repository)["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(banned) == set(ROOMS)


def test_importing_edgedeploy_imports_nothing_heavy():
    heavy = "{'torch', 'onnx', 'onnxruntime', 'numpy', 'pydantic', 'rich'}"
    code = f"import sys, edgedeploy.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_needs_neither_torch_nor_a_vendor_package():
    code = (
        "import sys\nfrom edgedeploy.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "print(sorted({'torch','onnx','onnxruntime','coremltools','tensorrt_rtx'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "deploy --target snapdragon888 model.pt" in done.stdout
    assert done.stderr.strip() == "[]"
