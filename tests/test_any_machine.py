"""The tests hold on any machine: none asserts a time, and every program that may be missing can be installed."""

from __future__ import annotations

import ast
import re

from programs import PACKAGES, find, lacking

CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time"}


def asserted_clocks(tree: ast.AST) -> list[int]:
    """Lines of asserts that read a clock, or a name that was given what a clock read."""
    clocked: set[str] = set()

    def reads(node: ast.AST) -> bool:
        return any(
            (isinstance(inner, ast.Attribute) and inner.attr in CLOCKS and ast.unparse(inner.value) == "time")
            or (isinstance(inner, ast.Name) and inner.id in clocked)
            for inner in ast.walk(node)
        )

    found = []
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        clocked = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and reads(node.value):
                clocked |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.Assert) and reads(node.test):
                found.append(node.lineno)
    return found


def test_no_test_asserts_how_long_something_takes(repository):
    """A loaded or slow machine must not fail a test; benchmarks measure."""
    wrong = [
        f"{path.relative_to(repository)}:{line}"
        for path in (repository / "tests").rglob("*.py")
        for line in asserted_clocks(ast.parse(path.read_text()))
    ]
    assert not wrong
    sample = "def test():\n    start = time.monotonic()\n    work()\n    assert time.monotonic() - start < 3\n"
    assert asserted_clocks(ast.parse(sample)) == [4]


def test_ci_installs_every_program_that_a_test_may_lack(repository):
    text = (repository / ".ci" / "run").read_text()
    packages = {package for group in PACKAGES.values() for package in group.split()}
    assert {
        package for package in packages if not re.search(rf"(?<![\w-]){re.escape(package)}(?![\w-])", text)
    } == set()


def test_a_missing_program_is_named_with_what_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find("arm-none-eabi-g++") is None
    assert lacking("arm-none-eabi-g++", "qemu-x86_64") == (
        "needs arm-none-eabi-g++, qemu-x86_64: "
        "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib qemu-user"
    )
