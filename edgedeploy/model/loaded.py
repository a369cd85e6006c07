"""`LoadedModel`: a trained model ready to be captured, and the FP32 reference that everything is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedeploy.errors import InputError
from edgedeploy.model.options import LoadOptions
from edgedeploy.tensors import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch
    from numpy.typing import NDArray
    from torch.export import ExportedProgram

    from edgedeploy.model.onnx_source import OnnxSource
    from edgedeploy.model.torch_source import TorchSource


@dataclass(frozen=True)
class LoadedModel:
    """A trained model and where it came from.

    Attributes:
        name: the file's stem.
        kind: "exported_program", "torchscript", "state_dict", "safetensors", "pickled_module" or "onnx".
        path, sha256: the file.
        options: how it was loaded.
        source: what runs it; use the methods below.
    """

    name: str
    kind: str
    path: Path
    sha256: str
    options: LoadOptions
    source: TorchSource | OnnxSource

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs in order, with a batch of 1."""
        return self.source.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs in order, with a batch of 1; nested structures are flattened and named."""
        return self.source.outputs

    @property
    def example(self) -> dict[str, NDArray[np.generic]]:
        """One sample on which the model runs, by input name: the one that `learn` was given, else made up."""
        return self.source.example

    def learn(self, sample: Mapping[str, NDArray[np.generic]]) -> None:
        """Take one of the user's samples in the place of made-up values, which may not be valid for this model.

        Raises:
            InputError: where the model does not run on it.
        """
        self.source.learn(sample)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how the model was taken."""
        return tuple(self.source.notes)

    def program(self, dynamic_batch: bool | None = None) -> ExportedProgram | None:
        """The exported program, made once per kind of batch; ``None`` for an .onnx source.

        Args:
            dynamic_batch: a batch of any size, or of exactly 1; by default what the options say. A model whose
                batch cannot be dynamic gives the fixed one, and a note.

        Raises:
            InputError: where torch cannot export the model.
        """
        from edgedeploy.model.torch_source import TorchSource

        if not isinstance(self.source, TorchSource):
            return None
        return self.source.program(self.options.dynamic_batch if dynamic_batch is None else dynamic_batch)

    def module(self) -> torch.nn.Module | None:
        """The torch module in eval mode; ``None`` for an .onnx source."""
        from edgedeploy.model.torch_source import TorchSource

        return self.source.module() if isinstance(self.source, TorchSource) else None

    def arguments(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """How values, one per input in order, reach `module`: positional and keyword arguments.

        Raises:
            InputError: for an .onnx source, which has no module.
        """
        from edgedeploy.model.torch_source import TorchSource

        if not isinstance(self.source, TorchSource):
            raise InputError(f"{self.name} is an .onnx model and has no torch module.")
        return self.source.arguments(values)

    def onnx(self) -> onnx.ModelProto | None:
        """The ONNX model as it was read; ``None`` for a torch source."""
        from edgedeploy.model.onnx_source import OnnxSource

        return self.source.model if isinstance(self.source, OnnxSource) else None

    def reference(self, sample: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """FP32 outputs for one sample (by input name, batch of 1), by captured output name.

        torch runs a torch source; ONNX Runtime, without optimizing, an .onnx one.
        """
        return self.source.reference(sample)
