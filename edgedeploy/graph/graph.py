"""`Graph`: one canonical FP32 ONNX graph with the facts that folding would have lost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnx

from edgedeploy.graph.facts import OpFacts, op_facts
from edgedeploy.tensors import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgedeploy.graph.agreement import Agreement

#: The opset of every canonical graph.
OPSET = 20


@dataclass(frozen=True)
class BatchNormStatistics:
    """What a folded batch normalization knew of its input: arrays of shape (channels,), float32.

    ``mean`` and ``variance`` describe the tensor before normalization, ``gamma`` and ``beta`` the one after.
    """

    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    gamma: NDArray[np.float32]
    beta: NDArray[np.float32]


@dataclass(frozen=True)
class Graph:
    """A static or declared-dynamic FP32 graph, opset 20, batch norms and constants folded, one file.

    Attributes:
        model: the ONNX model, every tensor's shape inferred, every node named.
        batch_norms: folded batch-norm statistics by the name of the tensor that the norm produced.
        modules: the source module ("encoder.layers.0.attn") of a node, by node name, where known.
        agreement: how far its outputs are from those of the model it was captured from; ``None`` where it was not.
    """

    model: onnx.ModelProto
    batch_norms: Mapping[str, BatchNormStatistics] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    agreement: Agreement | None = None

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that a caller feeds, in order."""
        return tuple(_spec(value) for value in self.model.graph.input)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in order."""
        return tuple(_spec(value) for value in self.model.graph.output)

    @cached_property
    def facts(self) -> tuple[OpFacts, ...]:
        """MACs, parameters, bytes and shapes of every op, in execution order."""
        return op_facts(self.model)

    @cached_property
    def sha256(self) -> str:
        """Hash of the graph's canonical serialization."""
        return hashlib.sha256(self.model.SerializeToString(deterministic=True)).hexdigest()

    @property
    def parameters(self) -> int:
        """Number of weights, biases and other constants with two elements or more."""
        return sum(
            int(np.prod(tensor.dims)) for tensor in self.model.graph.initializer if int(np.prod(tensor.dims)) > 1
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, dynamic dimensions counted as 1."""
        return sum(op.macs for op in self.facts)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "dynamic") for dim in tensor.shape.dim
    )
    return TensorSpec(value.name, shape, str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def graph_from_onnx(
    model: onnx.ModelProto,
    inputs: Sequence[TensorSpec] = (),
    *,
    dynamic_batch: bool = False,
    exact_masks: bool = False,
) -> Graph:
    """Bring a float ONNX model of any opset into canonical form; the model passed in is not changed.

    Args:
        model: with its weights inside, not as external data.
        inputs: the shapes to fix, batch of 1; by default those of the model with an open first axis as 1.
        dynamic_batch: leave a first axis that the model leaves open as "batch".
        exact_masks: leave infinities in attention masks.

    Raises:
        InputError: for a quantized or float16 model, operators outside ONNX, or an opset that cannot be converted.
    """
    from edgedeploy.graph.from_onnx import normalise

    return normalise(model, inputs, dynamic_batch, exact_masks)
