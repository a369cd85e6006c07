"""The JSON graph of a ``.pt2`` archive, held to what an exported graph really needs.

torch resolves each node's ``target`` by attribute look-up from ``torch`` (``torch.os.system`` would be found),
evaluates symbolic shapes and guards as Python source, writes the names of values into source that it executes
(``torch.fx``), and imports the modules that a tree description names. So the document is turned into torch's own
dataclasses (``torch/_export/serde/schema.py``), plain data, and these are checked, field by field: what is checked is
what torch then reads.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgedeploy.errors import InputError
from edgedeploy.model.archive import damaged
from edgedeploy.model.operators import is_allowed
from edgedeploy.model.shape_text import SYMBOL, fault_in_shape
from edgedeploy.model.tree_text import fault_in_tree, is_name

#: A parameter's or module's dotted name; torch puts it between double quotes where it is no identifier.
_DOTTED_NAME = re.compile(r"[\w.:/@+\- \[\]<>()=,]{0,1000}")
_MAX_STRING = 100_000
_MAX_SHAPES = 20_000
#: Work of one shape is some milliseconds; their letters together bound it.
_MAX_SHAPE_LETTERS = 1 << 20
_MAX_TEXT_BYTES = 256 << 20
#: Accelerators that a model may have been exported on; here it runs on the CPU.
_ACCELERATORS = frozenset({"cpu", "cuda", "mps", "xpu"})
#: What a node keeps: torch.onnx names nodes after their modules. The rest names functions and source lines.
_METADATA = frozenset({"nn_module_stack", "torch_fn"})
_TRUSTED_VERIFIERS = frozenset({"", "ATEN", "TRAINING"})


def read_json(path: Path, member: str, content: bytes) -> Any:
    """Parse a JSON member.

    Raises:
        InputError: where it is none, or is nested or large beyond reason.
    """
    if len(content) > _MAX_TEXT_BYTES:
        raise damaged(path, f"the table {member!r} has {len(content):,} bytes")
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise damaged(path, f"{member!r} is not readable JSON ({why})") from None


def read_program(path: Path, member: str, content: bytes) -> Any:
    """The graph as ``torch._export.serde.schema.ExportedProgram``, checked, moved to the CPU, without guards.

    Raises:
        InputError: naming what would have been resolved, evaluated or imported, or what is damaged.
    """
    from torch._export.serde import schema

    program = as_dataclass(path, member, schema.ExportedProgram, read_json(path, member, content))
    fault = next(faults_of(program), "")
    if fault:
        raise InputError(
            f"The graph in {str(path)!r} would run code on loading, or is none that is known here; nothing was loaded.",
            found=fault,
            remedy="Export the model again from its source; if you trust the file as a program, use --unsafe-load.",
        )
    _clean(program)
    return program


def as_dataclass(path: Path, member: str, kind: type, document: Any) -> Any:
    """Turn JSON into one of torch's dataclasses, which hold plain data only.

    Raises:
        InputError: where a field is missing or of another type.
    """
    from torch._export.serde.serialize import _dict_to_dataclass

    try:
        if not isinstance(document, dict):
            raise TypeError(f"a {type(document).__name__} at its top")
        return _dict_to_dataclass(kind, document)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, RecursionError) as error:
        raise damaged(
            path, f"{member!r} is not what torch writes ({type(error).__name__}: {str(error)[:150]})"
        ) from None


def is_dotted_name(text: str) -> bool:
    """True for what may name a weight or module: no quotes, no control characters, no double underscores in front."""
    return bool(_DOTTED_NAME.fullmatch(text)) and not any(word.startswith("__") for word in text.split("."))


def operators_of(program: Any) -> list[str]:
    """The targets of all nodes, sorted, graphs within the graph included."""
    return sorted({str(value) for owner, field, value in _fields(program) if (owner, field) == ("Node", "target")})


def faults_of(program: Any) -> Iterator[str]:
    """What in a graph would run code, or is of no known form; each as half a sentence."""
    shapes: set[str] = set()
    letters = 0
    for owner, field, value in _fields(program):
        fault = _fault(owner, field, value)
        if fault:
            yield fault
        if field == "expr_str" and not isinstance(value, str):
            yield f"a shape that is no text ({type(value).__name__})"
        elif field == "expr_str" and value not in shapes:
            shapes.add(value)
            letters += len(value)
            wrong = fault_in_shape(value)
            if wrong:
                yield f"a shape that is Python code or too large ({wrong}): {value[:80]!r}"
            if len(shapes) > _MAX_SHAPES or letters > _MAX_SHAPE_LETTERS:
                yield f"more than {_MAX_SHAPES:,} different shapes, or more than {_MAX_SHAPE_LETTERS:,} letters of them"
                return


def _fields(program: Any) -> Iterator[tuple[str, str, Any]]:
    """(dataclass, field, value) for each field at any depth; the keys of dicts as field "KEY"."""
    pending: list[tuple[str, str, Any]] = [("", "", program)]
    while pending:
        owner, field, value = pending.pop()
        if _is_record(value):
            name = type(value).__name__
            if _is_union(value):
                pending.append((name, str(value.type), value.value))  # one field is set
            else:
                pending.extend((name, item.name, getattr(value, item.name)) for item in dataclasses.fields(value))
            if name in (
                "CustomObjArgument",
                "TokenArgument",
                "InputToCustomObjSpec",
                "InputTokenSpec",
                "OutputTokenSpec",
            ):
                yield name, "OBJECT", value
        elif isinstance(value, dict):
            for key, item in value.items():
                yield f"{owner}.{field}", "KEY", key
                pending.append((f"{owner}.{field}", "VALUE", item))
        elif isinstance(value, list | tuple):
            pending.extend((owner, field, item) for item in value)
        yield owner, field, value


def _fault(owner: str, field: str, value: Any) -> str:
    match owner, field:
        case (_, "OBJECT"):
            return f"an object of a class of its own ({owner})"
        case ("Node", "target") | ("Argument", "as_operator"):
            if not isinstance(value, str) or not is_allowed(value):
                return f"a graph node that calls {str(value)[:100]!r}, which is not on the list of allowed operators"
        case ("ModuleCallSignature", "in_spec"):
            return fault_in_tree(value, is_call=True) if isinstance(value, str) else "a tree that is no text"
        case ("ModuleCallSignature", "out_spec"):
            return fault_in_tree(value) if isinstance(value, str) else "a tree that is no text"
        case ("ExportedProgram", "verifiers"):
            if isinstance(value, str) and value not in _TRUSTED_VERIFIERS:
                return f"a verifier {value[:80]!r}, which is not known here"
        case ("Device", "type"):
            if value not in _ACCELERATORS:
                return f"a device {str(value)[:80]!r}"
        case ("Argument" | "ConstantValue", "as_string" | "as_strings"):
            if isinstance(value, str) and len(value) > _MAX_STRING:
                return f"a text of {len(value):,} letters"
        case (_, "parameter_name" | "buffer_name" | "tensor_constant_name" | "fqn"):
            if not isinstance(value, str) or not is_dotted_name(value):
                return f"a weight or module named {str(value)[:80]!r}"
        case (_, "user_input_name"):
            return "" if is_name(value) else _name_fault(value)
        case ("ExportedProgram.range_constraints", "KEY"):
            if not isinstance(value, str) or not SYMBOL.fullmatch(value):
                return f"a size named {str(value)[:80]!r}"
            if re.fullmatch(r"[a-z]+\d{5,}", value) and value.startswith(("u", "zuf", "zf")):
                return f"a size named {value!r}, which torch would count up to"
        case (
            "Graph.tensor_values" | "Graph.sym_int_values" | "Graph.sym_bool_values" | "Graph.sym_float_values",
            "KEY",
        ):
            return "" if is_name(value) else _name_fault(value)
        case ("ModuleCallSignature", "forward_arg_names"):
            return "" if value is None or isinstance(value, list) or is_name(value) else _name_fault(value)
        case (_, "name" | "as_name"):
            # Constants, positional arguments and values that nobody reads have an empty name or none.
            return "" if value in (None, "") or is_name(value) else _name_fault(value)
    return _fault_in_leaf(value)


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value)


def _is_union(value: Any) -> bool:
    from torch._export.serde.union import _Union

    return isinstance(value, _Union)


def _name_fault(value: Any) -> str:
    return f"a value named {str(value)[:80]!r}, which torch would write into Python source"


def _fault_in_leaf(value: Any) -> str:
    if _is_record(value) or isinstance(value, dict | list | tuple | str | bool | float | None):
        return ""
    if isinstance(value, int):
        return "" if value.bit_length() <= 64 else "a number of more than 64 bits"
    return f"a value of the type {type(value).__name__}"


def _clean(program: Any) -> None:
    """Drop what only describes, or what torch would execute and nothing here needs; put everything on the CPU."""
    program.guards_code = []
    program.graph_module.metadata = {}
    pending: list[Any] = [program]
    while pending:
        here: Any = pending.pop()
        name = type(here).__name__
        if isinstance(here, dict):
            pending.extend(here.values())
        elif isinstance(here, list | tuple):
            pending.extend(here)
        elif _is_record(here):
            if name == "Node":
                here.metadata = _kept(here.metadata)
            elif name == "Device":
                here.type, here.index = "cpu", None
            if _is_union(here):
                pending.append(here.value)
            else:
                pending.extend(getattr(here, item.name) for item in dataclasses.fields(here))


def _kept(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict):
        return {}
    return {key: text for key, text in metadata.items() if key in _METADATA and isinstance(text, str)}
