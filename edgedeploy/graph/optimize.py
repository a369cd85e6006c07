"""onnxscript's general optimizer, with exact rules only.

Its patterns compare a float constant with abs_tol 1e-8 (``onnxscript/rewriter/_pattern_ir.py``, ``Constant``), so its
own no-op rules take the epsilon of ``log(x + 1e-9)`` for zero. Every rule below matches structure and integers;
additions and factors that change nothing are found by `remove_no_ops`, bit for bit. What the clip rules make of bounds
that cross (a lower above an upper one) is another function than the chain was, so two bounds are never merged.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from edgedeploy.graph.ir_edit import constant
from edgedeploy.graph.no_ops import remove_no_ops

if TYPE_CHECKING:
    from onnxscript.rewriter.pattern import RewriteRule

#: Constants up to this many elements are computed at capture (weights are transposed and folded whatever their size).
FOLDED_ELEMENTS = 2**20
_SHORT = 64
#: Each If that is resolved may make the condition of the next one known.
_MOST_ROUNDS = 8


def optimize(model: ir.Model) -> None:
    """Fold constants, apply the exact rules, remove what nothing reads, share equal constants; in place."""
    passes.InlinePass()(model)
    for _ in range(_MOST_ROUNDS):
        if any(node.op_type == "If" for node in model.graph.all_nodes()):
            # A condition on a size ("squeeze if the batch is 1") is known once the sizes before it are.
            passes.ShapeInferencePass(strict_mode=False, data_prop=True)(model)
        changed = fold_constants(model) | remove_no_ops(model) | _rewrite(model)
        changed |= passes.RemoveUnusedNodesPass()(model).modified
        if not changed:
            break
    ir.passes.Sequential(
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.LiftSubgraphInitializersToMainGraphPass(),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    )(model)


def fold_constants(model: ir.Model) -> bool:
    """Compute what constants alone determine, in branches too; True where anything changed."""
    from onnxscript import optimizer

    result = optimizer.fold_constants_ir(
        model,
        onnx_shape_inference=True,
        input_size_limit=FOLDED_ELEMENTS,
        output_size_limit=FOLDED_ELEMENTS,
        should_fold=_is_short_fill,
    )
    return bool(result)


def _is_short_fill(node: ir.Node) -> bool | None:
    """A ConstantOfShape stays by default, for it may be large; one of a few numbers is part of a shape or of pads."""
    if node.op_type != "ConstantOfShape" or node.domain:
        return None
    shape = constant(node.inputs[0])
    return True if shape is not None and int(np.prod(shape)) <= _SHORT else None


def _rewrite(model: ir.Model) -> bool:
    from onnxscript import rewriter

    return bool(rewriter.RewritePass(_exact_rules())(model).modified)


@cache
def _exact_rules() -> tuple[RewriteRule, ...]:
    """Onnxscript's default rules without those that compare floats with a tolerance or merge two clips."""
    from onnxscript.rewriter.rules import common

    return (
        common.two_reshapes_matmul_reshape_rule,
        common.one_reshape_matmul_reshape_rule,
        common.cast_constant_of_shape_rule,
        common.cast_constant_of_shape_without_value_rule,
        common.collapse_slice_rule,
        common.collapse_slice2_rule,
        common.materialize_reshape_shape_rule,
        common.min_min_rule,
        common.max_max_rule,
        common.min_max_rule,
        common.max_min_rule,
        common.successive_relu_rule,
        common.cast_cast_rule,
        common.no_op_cast_rule,
        common.no_op_expand_rule,
        common.flatten_to_reshape_rule,
        common.reshape_reshape_rule,
        common.slice_split_rule,
        common.no_op_transpose_rule,
        common.transpose_transpose_rule,
        common.unsqueeze_unsqueeze_rule,
        common.squeeze_reshape_1d_rule,
        common.no_op_static_scatter_nd_rule,
        common.no_op_dynamic_scatter_nd_rule,
        common.normalize_pad_format_conv_rule,
        common.fuse_pad_into_conv_rule,
        common.fuse_batchnorm_into_conv_rule,
        common.fuse_batchnorm_into_conv_transpose_rule,
        common.fuse_batchnorm_into_gemm_rule,
        common.remove_optional_bias_from_conv_rule,
        common.remove_optional_bias_from_conv_transpose_rule,
        common.remove_optional_bias_from_gemm_rule,
    )
