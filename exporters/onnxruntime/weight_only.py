"""Weight-only quantization: MatMulNBits kernels unpack 8- or 4-bit weights; activations stay float32."""

from __future__ import annotations

import numpy as np
import onnx

from edgedeploy.exporters.onnxruntime.dynamic import quiet

#: Weights that share one scale, along the input channels.
BLOCK_SIZE = 32
#: `accuracy_level` of MatMulNBits: 4 lets the kernel multiply in int8, block by block.
ACCURACY_LEVEL = 4


def quantize_weights(model: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """Pack every MatMul with a constant weight to ``bits`` (4 or 8) per weight.

    4-bit embeddings become GatherBlockQuantized; onnxruntime packs them to no other width.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    del model.graph.value_info[:]
    # The packer divides rows of zeros by their scale of zero, then takes the quotient for zero.
    with quiet(), np.errstate(invalid="ignore", divide="ignore"):
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=bits,
            block_size=BLOCK_SIZE,
            is_symmetric=True,
            accuracy_level=ACCURACY_LEVEL,
            nodes_to_exclude=_unpackable(model, bits),
            op_types_to_quantize=("MatMul", "Gather") if bits == 4 else ("MatMul",),
        )
        quantizer.process()
    result: onnx.ModelProto = quantizer.model.model
    return result


def _unpackable(model: onnx.ModelProto, bits: int) -> list[str]:
    """Nodes that the packer would take and break: Gathers of other axes, ranks or of rows shorter than a block."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names = []
    for node in model.graph.node:
        if node.op_type != "Gather" or node.input[0] not in constants or bits != 4:
            continue
        table = constants[node.input[0]]
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        if axis != 0 or len(table.dims) != 2 or table.dims[1] < BLOCK_SIZE or table.data_type != onnx.TensorProto.FLOAT:
            names.append(node.name)
    return names
