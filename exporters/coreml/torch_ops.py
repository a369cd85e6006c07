"""Torch ops that coremltools 9 lacks and common models need, registered once before the first conversion.

Each is written with MIL ops and enters coremltools' own registry of torch ops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_BOOL = 11
"""torch's number of ``torch.bool`` in a TorchScript graph."""

_done = False


def register() -> None:
    """Register every op of this file; ones that a later coremltools brings itself are left to it."""
    global _done  # noqa: PLW0603 - coremltools' registry is global too
    if _done:
        return
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

    known = _TORCH_OPS_REGISTRY.name_to_func_mapping
    for name, convert in _OPS.items():
        if name not in known:
            _TORCH_OPS_REGISTRY.set_func_by_name(convert, name)
    for name, convert in _REPLACED.items():
        _TORCH_OPS_REGISTRY.set_func_by_name(convert, name)
    # Boolean forms of the bit operators. "__and__" is looked up both as it is and without its last underscore,
    # which register_torch_op refuses as the mark of an in-place op.
    for function, names in _LOGICAL.items():
        for name in names:
            _TORCH_OPS_REGISTRY.set_func_by_name(_logical(function), name)
    _done = True


def _inputs(context: Any, node: Any) -> list[Any]:
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs

    return list(_get_inputs(context, node))


def _mb() -> Any:
    from coremltools.converters.mil import Builder

    return Builder


def _size(value: Any) -> Any:
    """A shape operand: a list of scalars is joined, an empty one is the shape of a scalar (``None``)."""
    import numpy as np

    mb = _mb()
    if isinstance(value, (list, tuple)):
        return mb.concat(values=list(value), axis=0) if value else None
    if value.val is not None and np.size(value.val) == 0:
        return None
    return value


def _new_ones(context: Any, node: Any) -> None:
    mb = _mb()
    operands = _inputs(context, node)
    size = _size(operands[1])
    asked = operands[2] if len(operands) > 2 else None
    asked = getattr(asked, "val", asked)
    to_bool = asked == _BOOL or str(asked) == "torch.bool" or (node.kwinputs or {}).get("dtype") == ["bool"]
    one = True if to_bool else 1.0
    if size is None:
        result = mb.const(val=one, name=node.name)
    elif to_bool:
        result = mb.cast(x=mb.fill(shape=size, value=1.0), dtype="bool", name=node.name)
    else:
        result = mb.fill(shape=size, value=1.0, name=node.name)
    context.add(result)


def _expm1(context: Any, node: Any) -> None:
    mb = _mb()
    context.add(mb.sub(x=mb.exp(x=_inputs(context, node)[0]), y=1.0, name=node.name))


def _log1p(context: Any, node: Any) -> None:
    mb = _mb()
    context.add(mb.log(x=mb.add(x=_inputs(context, node)[0], y=1.0), name=node.name))


def _lerp(context: Any, node: Any) -> None:
    mb = _mb()
    start, end, weight = _inputs(context, node)[:3]
    context.add(mb.add(x=start, y=mb.mul(x=mb.sub(x=end, y=start), y=weight), name=node.name))


def _celu(context: Any, node: Any) -> None:
    """CELU: a * elu(x / a)."""
    mb = _mb()
    x, alpha = _inputs(context, node)[:2]
    alpha = float(alpha.val)
    context.add(mb.mul(x=mb.elu(x=mb.mul(x=x, y=1.0 / alpha), alpha=1.0), y=alpha, name=node.name))


def _log_sigmoid(context: Any, node: Any) -> None:
    """Log of a sigmoid: -softplus(-x)."""
    mb = _mb()
    negated = mb.mul(x=_inputs(context, node)[0], y=-1.0)
    context.add(mb.mul(x=mb.softplus(x=negated), y=-1.0, name=node.name))


def _hardtanh(context: Any, node: Any) -> None:
    """Hardtanh whose bounds may be integers, which coremltools passes to ``clip`` as they are and then refuses."""
    x, low, high = _inputs(context, node)[:3]
    context.add(_mb().clip(x=x, alpha=float(low.val), beta=float(high.val), name=node.name))


def _addcmul(context: Any, node: Any) -> None:
    mb = _mb()
    operands = _inputs(context, node)
    product = mb.mul(x=operands[1], y=operands[2])
    if len(operands) > 3:
        product = mb.mul(x=product, y=float(operands[3].val))
    context.add(mb.add(x=operands[0], y=product, name=node.name))


def _addcdiv(context: Any, node: Any) -> None:
    mb = _mb()
    operands = _inputs(context, node)
    quotient = mb.real_div(x=operands[1], y=operands[2])
    if len(operands) > 3:
        quotient = mb.mul(x=quotient, y=float(operands[3].val))
    context.add(mb.add(x=operands[0], y=quotient, name=node.name))


def _isinf(context: Any, node: Any) -> None:
    mb = _mb()
    x = _inputs(context, node)[0]
    context.add(mb.equal(x=mb.abs(x=x), y=float("inf"), name=node.name))


def _logit(context: Any, node: Any) -> None:
    mb = _mb()
    operands = _inputs(context, node)
    x = operands[0]
    if len(operands) > 1 and operands[1] is not None:
        x = mb.clip(x=x, alpha=operands[1].val, beta=1.0 - operands[1].val)
    context.add(mb.log(x=mb.real_div(x=x, y=mb.sub(x=1.0, y=x)), name=node.name))


def _chunk(context: Any, node: Any) -> None:
    mb = _mb()
    operands = _inputs(context, node)
    x, count = operands[0], int(operands[1].val)
    axis = int(operands[2].val) if len(operands) > 2 else 0
    size = -(-int(x.shape[axis]) // count)
    sizes = [min(size, int(x.shape[axis]) - start) for start in range(0, int(x.shape[axis]), size)]
    context.add(mb.split(x=x, split_sizes=sizes, axis=axis) if len(sizes) > 1 else [x], torch_name=node.name)


def _lstm_cell(context: Any, node: Any) -> None:
    """One step of an LSTM: torch's gate order i, f, g, o."""
    mb = _mb()
    x, state, weight_ih, weight_hh, bias_ih, bias_hh = [*_inputs(context, node), None, None][:6]
    hidden, cell = state
    gates = mb.add(
        x=mb.linear(x=x, weight=weight_ih, bias=bias_ih) if bias_ih is not None else mb.linear(x=x, weight=weight_ih),
        y=mb.linear(x=hidden, weight=weight_hh, bias=bias_hh)
        if bias_hh is not None
        else mb.linear(x=hidden, weight=weight_hh),
    )
    i, f, g, o = mb.split(x=gates, num_splits=4, axis=-1)
    kept = mb.mul(x=mb.sigmoid(x=f), y=cell)
    cell = mb.add(x=kept, y=mb.mul(x=mb.sigmoid(x=i), y=mb.tanh(x=g)))
    hidden = mb.mul(x=mb.sigmoid(x=o), y=mb.tanh(x=cell))
    for name, value in zip(node.outputs, (hidden, cell), strict=True):
        context.add(value, torch_name=name)


def _where_scalar(context: Any, node: Any) -> None:
    mb = _mb()
    condition, a, b = _inputs(context, node)[:3]
    context.add(mb.select(cond=condition, a=a, b=b, name=node.name))


def _logical(function: str) -> Callable[[Any, Any], None]:
    def convert(context: Any, node: Any) -> None:
        from coremltools.converters.mil.mil import types

        mb = _mb()
        x, y = _inputs(context, node)[:2]
        if not (types.is_bool(x.dtype) and types.is_bool(y.dtype)):
            raise NotImplementedError(f"'{node.kind}' of integers; of booleans it is supported")
        context.add(getattr(mb, function)(x=x, y=y, name=node.name))

    return convert


_OPS: dict[str, Callable[[Any, Any], None]] = {
    "new_ones": _new_ones,
    "expm1": _expm1,
    "log1p": _log1p,
    "lerp": _lerp,
    "celu": _celu,
    "log_sigmoid": _log_sigmoid,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "isinf": _isinf,
    "logit": _logit,
    "chunk": _chunk,
    "unsafe_chunk": _chunk,
    "lstm_cell": _lstm_cell,
    "where.scalarother": _where_scalar,
    "where.scalarself": _where_scalar,
    "where.scalar": _where_scalar,
}

#: Ops that coremltools has and converts wrongly.
_REPLACED: dict[str, Callable[[Any, Any], None]] = {"hardtanh": _hardtanh, "hardtanh_": _hardtanh}

_LOGICAL: dict[str, tuple[str, ...]] = {
    "logical_and": ("bitwise_and", "and", "__and__", "__and_"),
    "logical_or": ("bitwise_or", "or", "__or__", "__or_"),
    "logical_xor": ("bitwise_xor", "xor", "__xor__", "__xor_"),
}
