"""Which classes and functions a pickle would call, read from its opcodes without running it.

The rules are those of ``torch.load(weights_only=True)``; what cannot be read with certainty is refused.
Opcode reference: ``pickletools`` and PEP 3154.
"""

from __future__ import annotations

import _compat_pickle
import io
import pickletools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from edgedeploy.errors import InputError

#: A global whose name the pickle computes while it runs, or an opcode of which nothing good can come.
OPAQUE = "<computed>"

_STRINGS = frozenset(
    {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)
_MEMO_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_MEMO_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TRANSPARENT = frozenset({"FRAME"})


def globals_of(program: bytes | IO[bytes], pickles: int = 1) -> frozenset[str]:
    """Dotted names of every global that ``pickles`` consecutive pickles import; ``<computed>`` for one not readable.

    A STACK_GLOBAL takes its two names from the stack. They are certain only if the two opcodes before it
    each pushed a known string, which every real pickler does; anything else counts as ``<computed>``.

    Raises:
        ValueError: where the bytes are no pickle.
    """
    names: set[str] = set()
    stream = io.BytesIO(program) if isinstance(program, bytes) else program
    for _ in range(pickles):
        names |= _scan(stream)
    return frozenset(names)


def _scan(stream: IO[bytes]) -> set[str]:
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
