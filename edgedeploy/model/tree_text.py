"""How inputs and outputs are nested, as text: torch imports the modules that such a description may name."""

from __future__ import annotations

import json
import keyword
from typing import Any

_MAX_LETTERS = 1 << 20
_MAX_DEPTH = 64
#: Factories of a ``defaultdict`` that need no import beyond the builtins.
_FACTORIES = frozenset({"list", "dict", "set", "tuple", "int", "float", "bool", "str"})


def fault_in_tree(text: str, *, is_call: bool = False) -> str:
    """What is wrong with a tree description (``torch.utils._pytree.treespec_dumps``), or "".

    Args:
        text: JSON of a protocol number and nested nodes.
        is_call: the tree is (args, kwargs) of ``forward``, whose keywords torch writes into Python source.
    """
    if len(text) > _MAX_LETTERS:
        return "a description of nested values that is too long"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return "a description of nested values that is not readable"
    match document:
        case [1, dict() as root]:
            return _fault_in_node(root, 0) or (_fault_in_keywords(root) if is_call else "")
    return "a description of nested values of an unknown version"


def _fault_in_node(node: Any, depth: int) -> str:
    from torch.utils import _pytree as pytree

    if depth > _MAX_DEPTH:
        return f"values nested deeper than {_MAX_DEPTH}"
    if not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"}:
        return "a description of nested values that is not readable"
    kind, context, children = node["type"], node["context"], node["children_spec"]
    if not isinstance(children, list):
        return "a description of nested values that is not readable"
    if kind is None:
        return "" if context is None and not children else "a leaf that holds values"
    if not isinstance(kind, str) or kind not in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE:
        return f"nested values of the type {str(kind)[:80]!r}, which is not known here"
    if kind == "collections.defaultdict":
        fault = _fault_in_defaultdict(context)
    elif kind == "collections.namedtuple":
        known = isinstance(context, str) and context in pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE
        fault = "" if known else f"a named tuple {str(context)[:80]!r}, which is not known here"
    else:
        fault = _fault_in_context(context)
    return fault or next((found for child in children if (found := _fault_in_node(child, depth + 1))), "")


def _fault_in_context(context: Any) -> str:
    if not isinstance(context, str):
        return "a description of nested values that is not readable"
    try:
        pending = [json.loads(context)]
    except (ValueError, RecursionError):
        return "a description of nested values that is not readable"
    while pending:
        here = pending.pop()
        if isinstance(here, dict):
            return f"a tree description that imports Python code ({str(here)[:80]})"
        if isinstance(here, list):
            pending.extend(here)
    return ""


def _fault_in_defaultdict(context: Any) -> str:
    match context:
        case {"default_factory_module": "builtins", "default_factory_name": str() as name, "dict_context": keys}:
            if name in _FACTORIES and len(context) == 3:
                return _fault_in_context(keys if isinstance(keys, str) else json.dumps(keys))
    return f"a tree description that imports Python code ({str(context)[:80]})"


def _fault_in_keywords(root: dict[str, Any]) -> str:
    """Keywords of ``forward`` become parameters of generated source."""
    children = root["children_spec"]
    if len(children) != 2:
        return ""
    try:
        names = json.loads(children[1]["context"] or "[]") if children[1]["type"] == "builtins.dict" else []
    except ValueError:
        return "a description of nested values that is not readable"
    bad = [name for name in names or [] if not is_name(name)]
    return f"an argument of forward() named {str(bad[0])[:80]!r}" if bad else ""


def is_name(text: Any) -> bool:
    """True for a Python identifier of ASCII letters that is no keyword: torch writes it into source it executes."""
    return (
        isinstance(text, str)
        and len(text) <= 1000
        and text.isascii()
        and text.isidentifier()
        and not keyword.iskeyword(text)
    )
