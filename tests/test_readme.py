"""What the README and the docs promise: commands parse, names exist, links lead somewhere."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest

from edgedeploy.backends import BUILT_IN
from edgedeploy.cli import COMMANDS
from edgedeploy.device_profiles.loader import builtin_names, load_profile
from edgedeploy.evidence import Evidence


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(repository) -> list[str]:
    pages = [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]
    lines = [line for page in pages for block in blocks(page.read_text()) for line in block.splitlines()]
    return sorted({line.partition("#")[0].strip() for line in lines if line.startswith("deploy ")})


def test_every_command_parses_and_its_targets_exist(repository):
    found = commands(repository)
    assert len(found) >= 8
    for line in found:
        words = shlex.split(line.rstrip("\\"))[1:]
        module = "deploy"
        if words[0] in COMMANDS:
            module = COMMANDS[words.pop(0)][0]
        context = importlib.import_module(f"edgedeploy.commands.{module}").command.make_context("deploy", words)
        for name in ",".join(context.params.get("targets") or ()).split(","):
            if name:
                load_profile(name.strip())


def test_every_subcommand_is_in_the_readme(repository):
    text = (repository / "README.md").read_text()
    for name in COMMANDS:
        assert f"deploy {name} " in text, f"deploy {name} is not in the README"


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "docs", "benchmarks/README.md"])
def test_links_lead_somewhere(repository, page):
    pages = sorted((repository / page).glob("*.md")) if (repository / page).is_dir() else [repository / page]
    for path in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_readme_names_every_kind_of_evidence_and_every_backend(repository):
    text = (repository / "README.md").read_text()
    assert all(f"`{kind}`" in text for kind in Evidence)
    table = text[text.index("## Targets") :]
    for name in re.findall(r"`([a-z0-9-]+)`", table[: table.index("## What")]):
        if name in builtin_names():
            continue
        assert name in {str(kind) for kind in Evidence} or name in {"executor"}, f"{name} is not a target"
    assert len(BUILT_IN) == 5


def test_the_readmes_make_targets_exist(repository):
    makefile = (repository / "Makefile").read_text()
    for name in re.findall(r"^make (\w+)", (repository / "README.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE)
