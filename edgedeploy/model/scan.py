"""What loading a file would do, told without loading it: by the parsers and checks that the loader itself uses."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError, UntrustedCodeError
from edgedeploy.model.archive import check_members, open_archive
from edgedeploy.model.container import Container, sniff

if TYPE_CHECKING:
    from edgedeploy.model.exported_program import ProgramArchive


class Severity(StrEnum):
    """How bad a finding is: ``danger`` is what `load_model` refuses."""

    NOTE = "note"
    DANGER = "danger"


@dataclass(frozen=True)
class Finding:
    """One thing that loading would do, or that keeps the file from being loaded.

    Attributes:
        severity: ``danger`` where the loader refuses the file for it.
        what: one sentence.
        found: the names that it is about, or "".
    """

    severity: Severity
    what: str
    found: str = ""


@dataclass(frozen=True)
class Scan:
    """What a file holds and would do.

    Attributes:
        container: as `sniff` tells it, or "unknown".
        size_bytes, unpacked_bytes: on disk, and all members together (0 where there are none).
        members: names in an archive.
        pickles: what each pickle imports.
        operators: what the graph calls.
        external_files: data files that it names.
        findings: the worst first.
    """

    container: str
    size_bytes: int
    unpacked_bytes: int
    members: tuple[str, ...]
    pickles: dict[str, tuple[str, ...]]
    operators: tuple[str, ...]
    external_files: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def dangerous(self) -> bool:
        """True where `load_model` would refuse the file without the user's word."""
        return any(finding.severity is Severity.DANGER for finding in self.findings)


class _Scanner:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self.members: tuple[str, ...] = ()
        self.unpacked = 0
        self.pickles: dict[str, tuple[str, ...]] = {}
        self.operators: tuple[str, ...] = ()
        self.external: tuple[str, ...] = ()

    def attempt(self, check: Callable[[], Any]) -> Any:
        """Run one of the loader's checks; what it refuses is a finding."""
        try:
            return check()
        except InputError as error:
            self.findings.append(Finding(Severity.DANGER, error.what, error.found))
            return None

    def note(self, what: str, found: str = "") -> None:
        self.findings.append(Finding(Severity.NOTE, what, found))

    def archive(self) -> None:
        with open_archive(self.path) as archive:
            self.members = tuple(archive.namelist())
            self.unpacked = sum(member.file_size for member in archive.infolist())
        check_members(self.path)

    def program(self) -> None:
        from edgedeploy.model import exported_program as program
        from edgedeploy.model.program_text import operators_of, read_program

        with program.open_program(self.path) as parts:
            for name in (n for n in parts.members if n.endswith("/model.pt")):
                found = self.attempt(partial(_saved, parts, name))
                if found is not None:
                    self.pickles[name] = tuple(sorted(found))
            self.attempt(lambda: program.check_sample_inputs(parts))
            graph = self.attempt(lambda: read_program(self.path, program.GRAPH, parts.read(program.GRAPH)))
            if graph is not None:
                self.operators = tuple(operators_of(graph))
            for kind in ("weights", "constants"):
                self.attempt(partial(program.read_part, parts, kind))

    def pickle(self, legacy: bool) -> None:
        from edgedeploy.model.pickles import refuse_unsafe
        from edgedeploy.model.torch_files import pickle_globals

        found = pickle_globals(self.path, legacy)
        self.pickles = {place: tuple(sorted(names)) for place, names in found.items()}
        refuse_unsafe(self.path, found, frozenset())

    def onnx(self) -> None:
        from edgedeploy.model.onnx_form import tensors_of
        from edgedeploy.model.onnx_source import parse_onnx, read_onnx

        model = parse_onnx(self.path)
        self.operators = tuple(sorted({f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in model.graph.node}))
        self.external = tuple(
            sorted({e.value for tensor in tensors_of(model) for e in tensor.external_data if e.key == "location"})
        )
        read_onnx(self.path)

    def torchscript(self) -> None:
        raise UntrustedCodeError("It is TorchScript: loading and running it runs its code.", found="code/")

    def safetensors(self) -> None:
        from edgedeploy.model.weights import read_safetensors

        read_safetensors(self.path)


def _saved(parts: ProgramArchive, name: str) -> frozenset[str]:
    from edgedeploy.model.pickles import saved_globals

    return saved_globals(parts.path, name, io.BytesIO(parts.read(name)))


def scan_file(path: Path) -> Scan:
    """Say what loading the file would do; nothing of it is executed, unpickled, imported or evaluated.

    Raises:
        InputError: where there is no regular file.
    """
    from edgedeploy.untrusted import check_regular

    size = check_regular(path).st_size
    scanner = _Scanner(path)
    container = scanner.attempt(lambda: sniff(path))
    if container in (Container.EXPORTED_PROGRAM, Container.PICKLE, Container.TORCHSCRIPT):
        scanner.attempt(scanner.archive)
    steps: dict[Any, Callable[[], None]] = {
        Container.EXPORTED_PROGRAM: scanner.program,
        Container.PICKLE: lambda: scanner.pickle(False),
        Container.LEGACY_PICKLE: lambda: scanner.pickle(True),
        Container.TORCHSCRIPT: scanner.torchscript,
        Container.ONNX: scanner.onnx,
        Container.SAFETENSORS: scanner.safetensors,
    }
    if container is not None and not scanner.findings:
        scanner.attempt(steps[container])
    if scanner.external:
        scanner.note("It reads data files beside it.", ", ".join(scanner.external[:20]))
    return Scan(
        container.value if container is not None else "unknown",
        size,
        scanner.unpacked,
        scanner.members,
        scanner.pickles,
        scanner.operators,
        scanner.external,
        tuple(sorted(dict.fromkeys(scanner.findings), key=lambda finding: finding.severity is Severity.NOTE)),
    )
