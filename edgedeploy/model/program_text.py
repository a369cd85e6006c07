"""The JSON graph of a ``.pt2`` archive, held to what an exported graph really needs.

torch resolves each node's ``target`` by attribute look-up from ``torch`` (``torch.os.system`` would be found),
evaluates each symbolic shape as Python source (``sympy.sympify``), and imports the modules that a tree
description names (``torch/_export/serde/serialize.py``, ``torch/utils/_pytree.py``). So all three are checked
against an allow-list before torch sees them.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgedeploy.errors import InputError
from edgedeploy.model.archive import damaged

_OPERATOR = re.compile(
    r"torch\.ops\.(?!load_library|loaded_libraries|import_module)[a-zA-Z]\w*(\.[a-zA-Z_]\w*){1,2}"
    r"|torch\._?sym_\w+|math\.[a-z]\w*"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|invert|not_|"
    r"lshift|rshift|getitem|index)"
)
_DUNDER = re.compile(r"__(i?)(and|or|xor|lshift|rshift)__")
#: The names that sympy's srepr of a shape expression is made of.
_SHAPE_NAMES = frozenset(
    {
        "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "Eq", "Ne",
        "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan",
        "GreaterThan", "And", "Or", "Not", "Piecewise", "ITE", "floor", "ceiling", "FloorDiv",
        "ModularIndexing", "Where", "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "LShift",
        "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator",
        "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
    }
)  # fmt: skip
_SYMBOL = re.compile(r"(s|u|i|zuf|zf|q)\d+|[a-zA-Z]\w*")
_SHAPE_SYNTAX = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.USub, ast.UAdd,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Compare, ast.Eq,
    ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Tuple,
)  # fmt: skip
_MAX_EXPRESSION = 10_000


def check_program_text(path: Path, member: str, content: bytes) -> None:
    """Refuse a JSON graph that names anything but tensor operators and shape arithmetic.

    Raises:
        InputError: naming what would have been resolved, evaluated or imported.
    """
    try:
        document = json.loads(content)
        for key, value in _walk(document):
            if key in ("target", "as_operator") and isinstance(value, str):
                _check_operator(path, value)
            elif key == "expr_str" and isinstance(value, str):
                _check_expression(path, value)
            elif key in ("__enum__", "default_factory_module"):
                raise _refused(path, f"a tree description that imports Python code ({value!r})")
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"the graph {member!r} is not readable JSON ({error})") from error


def _walk(document: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth, JSON documents inside strings included."""
    pending = [document]
    while pending:
        here = pending.pop()
        if isinstance(here, dict):
            yield from here.items()
            pending.extend(here.values())
        elif isinstance(here, list):
            pending.extend(here)
        elif isinstance(here, str) and here.lstrip()[:1] in ("{", "[", '"'):
            try:
                inner = json.loads(here)
            except ValueError:
                continue
            pending.append(inner)


def _check_operator(path: Path, target: str) -> None:
    # Targets without one of torch's prefixes stay plain strings (placeholders, attributes).
    if not target.startswith(("torch", "_operator", "math", "#")):
        return
    words = target.split(".")
    dunders = [word for word in words if word.startswith("__") and not _DUNDER.fullmatch(word)]
    if dunders or not _OPERATOR.fullmatch(target):
        raise _refused(path, f"a graph node that calls {target!r}")


def _check_expression(path: Path, text: str) -> None:
    problem = ""
    if len(text) > _MAX_EXPRESSION:
        problem = "too long"
    else:
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, MemoryError) as error:
            raise _refused(path, f"a shape that is no expression: {text[:80]!r}") from error
        for node in ast.walk(tree):
            if not isinstance(node, _SHAPE_SYNTAX):
                problem = type(node).__name__
            elif isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _SHAPE_NAMES):
                problem = "a call"
            elif isinstance(node, ast.Name) and "__" in node.id:
                problem = node.id
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not _SYMBOL.fullmatch(node.value):
                problem = repr(node.value)
    if problem:
        raise _refused(path, f"a shape that is Python code ({problem}): {text[:80]!r}")


def _refused(path: Path, found: str) -> InputError:
    return InputError(
        f"The graph in {str(path)!r} would run code on loading; nothing was loaded.",
        found=found,
        remedy="Export the model again from its source; if you trust the file as a program, use --unsafe-load.",
    )
