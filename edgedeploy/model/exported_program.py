"""Reading a ``.pt2`` archive (``torch.export.save``) without ever handing it to ``torch.export.load``.

``torch.export.load`` unpickles without restriction where a restricted attempt fails, loads compiled code, imports
modules and evaluates text (torch 2.13: ``torch/export/pt2_archive/_package.py``, ``torch/_export/serde/serialize.py``).
So the archive is read here: every member must be one that ``torch.export.save`` writes, the graph is parsed and checked
(`program_text`), tensors are made from their bytes (`tensor_parts`), and torch only builds the graph of operators from
what was parsed, while its unpickler is out of reach.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError
from edgedeploy.model.archive import damaged, open_archive, read_member
from edgedeploy.model.pickles import check_restricted, load_restricted
from edgedeploy.model.program_text import read_program
from edgedeploy.model.quiet import quiet
from edgedeploy.model.tensor_parts import read_tensors

if TYPE_CHECKING:
    from torch.export import ExportedProgram

GRAPH = "models/model.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
#: Everything that torch.export.save writes, and nothing that carries code.
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/version|\.data/serialization_id|\.format_version"
    r"|\.storage_alignment|models/model\.json|data/sample_inputs/model\.pt|extra/.+"
    r"|data/weights/(model_weights_config\.json|model\.pt|weight_\d{1,7})"
    r"|data/constants/(model_constants_config\.json|model\.pt|tensor_\d{1,7})"
)
_CODE = re.compile(r"data/(aotinductor|executorch|constants/(custom|opaque)_obj)")
_LOCK = threading.RLock()


@dataclass(frozen=True)
class ProgramArchive:
    """An opened ``.pt2``: ``members`` by their names without the root folder."""

    path: Path
    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]

    def read(self, name: str) -> bytes:
        """The bytes of one member; `InputError` where it is missing or damaged."""
        if name not in self.members:
            raise damaged(self.path, f"it has no member {name!r}")
        return read_member(self.path, self.archive, self.members[name])


def read_exported_program(path: Path, allowed: frozenset[str] = frozenset(), unsafe: bool = False) -> ExportedProgram:
    """Parse the archive, and let torch build a program from what was parsed.

    Args:
        path: the archive, whatever its suffix.
        allowed: globals that the pickles of its sample inputs may name beyond torch's safe ones; they are not loaded.
        unsafe: the user vouches for the file (``--unsafe-load``): torch reads it as it is.

    Raises:
        InputError: where a part would run code, is of no known form, or the archive cannot be read.
    """
    import torch

    try:
        if unsafe:
            with path.open("rb") as file:
                return torch.export.load(file)
        with open_program(path) as parts:
            check_sample_inputs(parts, allowed)
            program = read_program(path, GRAPH, parts.read(GRAPH))
            weights, constants = read_part(parts, "weights"), read_part(parts, "constants")
        return _build(program, weights, constants)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{str(path)!r} is a .pt2 archive that torch {torch.__version__} cannot load.",
            found=f"{type(error).__name__}: {_last_line(error)}",
            remedy="Save it again with torch.export.save under a torch version that is supported here.",
        ) from error


@contextlib.contextmanager
def open_program(path: Path) -> Iterator[ProgramArchive]:
    """Open the archive and demand the members that ``torch.export.save`` writes, and no others.

    Raises:
        InputError: naming a member that carries code or is not known.
    """
    with open_archive(path) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}
        if len(roots) != 1:
            raise damaged(path, f"a .pt2 archive has one top folder; this one has {', '.join(sorted(roots)[:5])}")
        parts = ProgramArchive(path, archive, {i.filename.partition("/")[2]: i for i in archive.infolist()})
        for name in parts.members:
            if _CODE.match(name.lower()):
                raise InputError(
                    f"{str(path)!r} carries compiled code or objects that would run on loading; nothing was loaded.",
                    found=name,
                    remedy="Save the ExportedProgram alone, of plain tensors (torch.export.save); if you trust the "
                    "file, use --unsafe-load.",
                )
            if not _KNOWN.fullmatch(name):
                raise InputError(
                    f"{str(path)!r} has a member that torch.export.save does not write; nothing was loaded.",
                    found=name[:200],
                    remedy="Save the program alone with torch.export.save.",
                )
        if parts.read("archive_format") != b"pt2" or parts.read("archive_version").strip() != b"0":
            raise damaged(path, f"its format is {parts.read('archive_version')[:20]!r}; version 0 of 'pt2' is known")
        if parts.members.get("byteorder") and parts.read("byteorder") != b"little":
            raise damaged(path, "it was written on a big-endian machine")
        for name in parts.members:
            if name.startswith("extra/"):
                _check_text(path, name, parts.read(name))
        yield parts


def check_sample_inputs(parts: ProgramArchive, allowed: frozenset[str] = frozenset()) -> None:
    """The sample inputs are not used; but they are what torch would unpickle, so they must be harmless.

    Raises:
        InputError: where they are not what torch.save writes of tensors.
    """
    if SAMPLE_INPUTS in parts.members:
        check_restricted(parts.path, SAMPLE_INPUTS, io.BytesIO(parts.read(SAMPLE_INPUTS)), allowed)


def read_part(parts: ProgramArchive, kind: str) -> dict[str, Any]:
    """The "weights" or "constants" by name; older torch kept them in one file of torch.save.

    Raises:
        InputError: where anything there is no plain tensor.
    """
    import torch

    old, table = f"data/{kind}/model.pt", f"data/{kind}/model_{kind}_config.json"
    if old not in parts.members:
        return read_tensors(parts.path, kind, parts.read(table), lambda name: parts.read(f"data/{kind}/{name}"))
    if table in parts.members:
        raise damaged(parts.path, f"it has its {kind} twice, as {old!r} and {table!r}")
    content = parts.read(old)
    tensors = load_restricted(parts.path, old, io.BytesIO(content)) if content else {}
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and type(value) in (torch.Tensor, torch.nn.Parameter) for name, value in tensors.items()
    ):
        raise damaged(parts.path, f"{old!r} holds something else than named tensors")
    return dict(tensors)


def _build(program: Any, weights: dict[str, Any], constants: dict[str, Any]) -> ExportedProgram:
    from torch._export.serde import serialize

    # The deserializer keeps itself in a global.
    with _LOCK, _without_unpickler(serialize), quiet():
        built: ExportedProgram = serialize.ExportedProgramDeserializer().deserialize(program, weights, constants, None)
    return built


@contextlib.contextmanager
def _without_unpickler(serialize: Any) -> Iterator[None]:
    """Take away, from this thread, the one function through which torch's deserializer reaches an unpickler."""
    original, thread = serialize.deserialize_torch_artifact, threading.get_ident()

    def parsed_only(serialized: Any) -> Any:
        if threading.get_ident() != thread:
            return original(serialized)
        if not isinstance(serialized, dict):
            raise ValueError("a part that was not parsed reached torch's unpickler")
        return serialized

    serialize.deserialize_torch_artifact = parsed_only
    try:
        yield
    finally:
        serialize.deserialize_torch_artifact = original


def _check_text(path: Path, name: str, content: bytes) -> None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise damaged(path, f"the extra file {name[:80]!r} is no text")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
