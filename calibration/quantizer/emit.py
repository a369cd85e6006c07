"""Write the planned QuantizeLinear and DequantizeLinear nodes into a copy of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgedeploy.calibration.quantizer.encoding import Encoding
from edgedeploy.calibration.quantizer.plan import Plan
from edgedeploy.calibration.quantizer.topology import Topology
from edgedeploy.graph.names import names_read

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: QuantizeLinear takes 16-bit and 4-bit types from this opset on (onnx.ai/onnx/operators/onnx__QuantizeLinear.html).
_WIDE_OPSET = 21


def emit(model: onnx.ModelProto, topology: Topology, plan: Plan) -> onnx.ModelProto:
    """The model with every planned Q/DQ node; opset 21 where a format is not 8 bits wide, else the model's own."""
    writer = _Writer(model, topology, plan)
    for node in topology.nodes:
        writer.node(node)
    return writer.finish()


class _Writer:
    def __init__(self, model: onnx.ModelProto, topology: Topology, plan: Plan) -> None:
        self._model, self._topology, self._plan = model, topology, plan
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._names = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self._names |= {value.name for value in (*model.graph.input, *model.graph.initializer)}
        self._constants: dict[tuple[str, bytes], str] = {}
        self._views: dict[tuple[str, bytes], str] = {}
        self._wide = False

    def node(self, node: onnx.NodeProto) -> None:
        """Append a node with its operands replaced by what it now reads, then the pairs of what it makes."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            edge = (node.name, position)
            if edge in self._plan.constants:
                copy.input[position] = self._constant(name, self._plan.constants[edge])
            elif edge in self._plan.read:
                copy.input[position] = self._view(name, self._plan.read[edge])
            elif name in self._plan.stored:
                copy.input[position] = self._view(name, self._plan.stored[name])
        for place, name in enumerate(node.output):
            if name in self._plan.stored and name in self._topology.outputs:
                copy.output[place] = self._fresh(f"{name}_float")
        self._nodes.append(copy)
        for source, name in zip(copy.output, node.output, strict=True):
            if name in self._plan.stored:
                self._store(source, name)

    def finish(self) -> onnx.ModelProto:
        """The finished model, without what nothing reads any more."""
        result = onnx.ModelProto()
        result.CopyFrom(self._model)
        graph = result.graph
        del graph.node[:]
        graph.node.extend(self._nodes)
        used = names_read(graph) | self._topology.outputs
        kept = [tensor for tensor in (*self._model.graph.initializer, *self._initializers) if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        if self._wide:
            for item in result.opset_import:
                if item.domain in ("", "ai.onnx"):
                    item.version = max(item.version, _WIDE_OPSET)
            result.ir_version = max(result.ir_version, 10)
        return result

    def _store(self, source: str, name: str) -> None:
        """Round a tensor that an integer op makes; a graph output keeps its name on the rounded values."""
        encoding = self._plan.stored[name]
        key = (name, encoding.identity)
        target = name if name in self._topology.outputs else self._fresh(f"{name}_dequantized")
        self._pair(source, name, target, encoding)
        self._views[key] = target

    def _view(self, name: str, encoding: Encoding) -> str:
        """The name under which ``name`` is read in an encoding; a second encoding rounds the first one's values."""
        key = (name, encoding.identity)
        if key not in self._views:
            source = name
            stored = self._plan.stored.get(name)
            if stored is not None:
                source = self._views[name, stored.identity]
            target = self._fresh(f"{name}_dequantized")
            self._pair(source, name, target, encoding)
            self._views[key] = target
        return self._views[key]

    def _pair(self, source: str, name: str, target: str, encoding: Encoding) -> None:
        quantized = self._fresh(f"{name}_quantized")
        scale, zero_point = self._parameters(quantized.removesuffix("_quantized"), encoding)
        quantize = helper.make_node(
            "QuantizeLinear", [source, scale, zero_point], [quantized], name=f"{quantized}_QuantizeLinear"
        )
        dequantize = helper.make_node(
            "DequantizeLinear", [quantized, scale, zero_point], [target], name=f"{quantized}_DequantizeLinear"
        )
        self._nodes += [quantize, dequantize]
        self._describe(name, quantized, target, encoding)

    def _constant(self, name: str, encoding: Encoding) -> str:
        """An integer initializer and the DequantizeLinear that every reader in this encoding shares."""
        key = (name, encoding.identity)
        if key not in self._constants:
            quantized = self._fresh(f"{name}_quantized")
            target = self._fresh(f"{name}_dequantized")
            codes = self._plan.quantized(name, encoding, self._topology.value(name))
            self._initializers.append(_tensor(quantized, codes, encoding.format.dtype))
            scale, zero_point = self._parameters(quantized.removesuffix("_quantized"), encoding)
            node = helper.make_node(
                "DequantizeLinear", [quantized, scale, zero_point], [target], name=f"{quantized}_DequantizeLinear"
            )
            if encoding.axis is not None:
                node.attribute.append(helper.make_attribute("axis", encoding.axis))
            self._nodes.append(node)
            self._constants[key] = target
        return self._constants[key]

    def _parameters(self, stem: str, encoding: Encoding) -> tuple[str, str]:
        scale, zero_point = self._fresh(f"{stem}_scale"), self._fresh(f"{stem}_zero_point")
        self._initializers.append(numpy_helper.from_array(encoding.scale, scale))
        self._initializers.append(_tensor(zero_point, encoding.zero_point, encoding.format.dtype))
        self._wide |= encoding.format.bits not in (8, 32)
        return scale, zero_point

    def _describe(self, name: str, quantized: str, target: str, encoding: Encoding) -> None:
        shape = self._topology.shapes.get(name)
        if shape is None:
            return
        integer = helper.np_dtype_to_tensor_dtype(_np_dtype(encoding.format.dtype))
        values = [helper.make_tensor_value_info(quantized, integer, shape)]
        if target not in self._topology.outputs:
            values.append(helper.make_tensor_value_info(target, onnx.TensorProto.FLOAT, shape))
        self._model.graph.value_info.extend(values)

    def _fresh(self, name: str) -> str:
        chosen, count = name, 1
        while chosen in self._names:
            stem, mark, suffix = name.rpartition("_")
            chosen = f"{stem}_{count}{mark}{suffix}"
            count += 1
        self._names.add(chosen)
        return chosen


def _np_dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name) if name in {"int4", "uint4"} else name)


def _tensor(name: str, codes: NDArray[np.int64], dtype: str) -> onnx.TensorProto:
    return numpy_helper.from_array(codes.astype(_np_dtype(dtype)), name)
