"""Which classes and functions a pickle would call, read from its opcodes without running it.

The rules are those of ``torch.load(weights_only=True)``; what cannot be read with certainty is refused.
Opcode reference: ``pickletools`` and PEP 3154.
"""

from __future__ import annotations

import _compat_pickle
import io
import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from edgedeploy.errors import InputError
from edgedeploy.model.archive import MAX_PROGRAM_BYTES, damaged, open_archive, read_member

#: A global whose name the pickle computes while it runs, or an opcode of which nothing good can come.
OPAQUE = "<computed>"

_STRINGS = frozenset(
    {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)
_MEMO_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_MEMO_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TRANSPARENT = frozenset({"FRAME"})

#: The members of an archive that torch.save writes.
_SAVED = re.compile(
    r"data\.pkl|version|byteorder|data/\d{1,9}|\.data/(version|serialization_id)|\.format_version|\.storage_alignment"
)
#: What old (non-zip) torch.save files begin with: torch.serialization.MAGIC_NUMBER as a pickle of protocol 2.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class _Bounded:
    """A file that a length of 2^56 in a pickle cannot make allocate more than it holds."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        here = file.tell()
        self._end = file.seek(0, 2)
        file.seek(here)

    def read(self, size: int = -1) -> bytes:
        left = max(self._end - self._file.tell(), 0)
        return self._file.read(left if size < 0 else min(size, left))

    def readline(self, size: int | None = -1) -> bytes:
        return self._file.readline(
            min(MAX_PROGRAM_BYTES, size if size is not None and size >= 0 else MAX_PROGRAM_BYTES)
        )

    def tell(self) -> int:
        return self._file.tell()


def globals_of(program: bytes | IO[bytes], pickles: int = 1) -> frozenset[str]:
    """Dotted names of every global that ``pickles`` consecutive pickles import; ``<computed>`` for one not readable.

    A STACK_GLOBAL takes its two names from the stack. They are certain only if the two opcodes before it
    each pushed a known string, which every real pickler does; anything else counts as ``<computed>``.

    Raises:
        ValueError: where the bytes are no pickle.
    """
    names: set[str] = set()
    stream = _Bounded(io.BytesIO(program) if isinstance(program, bytes) else program)
    try:
        for _ in range(pickles):
            names |= _scan(stream)
    except (ValueError, EOFError, IndexError, MemoryError, OverflowError, RecursionError) as error:
        raise ValueError(str(error)[:200] or type(error).__name__) from None
    return frozenset(names)


def saved_globals(path: Path, where: str, file: IO[bytes]) -> frozenset[str]:
    """The globals of the one pickle in an archive of the form that torch.save writes.

    Raises:
        InputError: where it is another file (an old, non-zip one too), or has members that torch.save does not write.
    """
    head = file.read(2)
    file.seek(0)
    if head != b"PK":
        raise InputError(
            f"{where} in {str(path)!r} is not what torch.save writes; nothing was loaded.",
            found=f"bytes that start with {head!r}",
            remedy="Save it again with a newer torch.",
        )
    with open_archive(path, file, where) as archive:
        members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
        check_saved_names(path, archive, where)
        program = read_member(path, archive, members["data.pkl"], MAX_PROGRAM_BYTES)
    try:
        return globals_of(program)
    except ValueError as error:
        raise damaged(path, f"the pickle {where + '/data.pkl'!r} cannot be read ({error})") from None


def check_saved_names(path: Path, archive: zipfile.ZipFile, where: str = "") -> None:
    """Demand the members that torch.save writes, all below one folder.

    Raises:
        InputError: naming another one.
    """
    names = archive.namelist()
    if len({name.partition("/")[0] for name in names}) != 1:
        raise damaged(path, f"{where or 'it'} has more than one top folder")
    short = [name.partition("/")[2] for name in names]
    strange = [name for name in short if not _SAVED.fullmatch(name)]
    if strange or "data.pkl" not in short:
        what = repr(strange[0][:200]) if strange else "no data.pkl"
        raise damaged(path, f"{where or 'it'} has {what}: torch.save writes no such archive")


def check_restricted(path: Path, where: str, file: IO[bytes], allowed: frozenset[str] = frozenset()) -> None:
    """Refuse an archive within ``path`` whose pickle names more than tensors need, or that is of another form.

    Raises:
        InputError: naming what it would call.
    """
    refuse_unsafe(path, {where: saved_globals(path, where, file)}, allowed)


def load_restricted(path: Path, where: str, file: IO[bytes]) -> Any:
    """Load what torch.save wrote of tensors, after `check_restricted`, with torch's restricted unpickler.

    Raises:
        InputError: where it names more than tensors need, or torch cannot read it.
    """
    import torch

    check_restricted(path, where, file)
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise damaged(path, f"torch cannot read {where} ({type(error).__name__}: {str(error)[:150]})") from error


def _scan(stream: Any) -> set[str]:
    names: set[str] = set()
    memo: dict[int, str | None] = {}
    pushed: tuple[str | None, str | None] = (None, None)
    protocol = 0
    for opcode, argument, _ in pickletools.genops(stream):
        kind = opcode.name
        if kind in _STRINGS:
            pushed = (pushed[1], argument if isinstance(argument, str) else None)
        elif kind in _MEMO_PUTS:
            # CPython memoizes at len(memo) in both of its unpicklers as long as no key was skipped; a gap makes
            # MEMOIZE ambiguous, and then every later look-up is unknown.
            key = len(memo) if kind == "MEMOIZE" else int(argument or 0)
            memo[key] = pushed[1] if key <= len(memo) else None
        elif kind in _MEMO_GETS:
            pushed = (pushed[1], memo.get(int(argument or 0)))
        elif kind in ("GLOBAL", "INST"):
            where, _, what = str(argument).partition(" ")
            names.add(_python_3_name(where, what) if protocol < 3 else f"{where}.{what}")
            pushed = (None, None)
        elif kind == "STACK_GLOBAL":
            module, name = pushed
            names.add(f"{module}.{name}" if module is not None and name is not None else OPAQUE)
            pushed = (None, None)
        elif kind in ("EXT1", "EXT2", "EXT4"):
            names.add(OPAQUE)
            pushed = (None, None)
        elif kind == "PROTO":
            protocol = int(argument or 0)
        elif kind not in _TRANSPARENT:
            pushed = (None, None)
    return names


def _python_3_name(module: str, name: str) -> str:
    """What the unpickler makes of a name written for Python 2, as protocols below 3 are ("__builtin__ set")."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[module, name]
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


def safe_globals() -> frozenset[str]:
    """The names that torch's restricted unpickler takes."""
    import torch._weights_only_unpickler as unpickler

    return frozenset(unpickler._get_allowed_globals())


def refuse_unsafe(path: Path, found: Mapping[str, Iterable[str]], allowed: frozenset[str]) -> None:
    """Refuse a file whose pickles name globals beyond ``safe_globals() | allowed``.

    Args:
        path: the file, for the message.
        found: the globals of each pickle, by the pickle's place in the file.
        allowed: names the user vouches for (``--allow-global``).

    Raises:
        InputError: listing every refused name and the two ways on.
    """
    taken = safe_globals() | allowed
    refused = {place: sorted(set(names) - taken) for place, names in found.items()}
    refused = {place: names for place, names in refused.items() if names}
    if not refused:
        return
    listing = "; ".join(f"{place}: {', '.join(names)}" for place, names in refused.items())
    flags = " ".join(
        f"--allow-global {name}" for name in sorted({name for names in refused.values() for name in names})
    )
    vouch = f"If you know and trust each of these names, allow them: {flags}. " if OPAQUE not in flags else ""
    raise InputError(
        f"{str(path)!r} holds a pickle that would call code on loading; nothing was loaded.",
        found=listing,
        remedy=f"Best save a state_dict or a .pt2 (torch.export.save) instead. {vouch}"
        "If you trust the file as you would trust a program, use --unsafe-load.",
    )
