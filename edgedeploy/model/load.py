"""`load_model`: from a file to a `LoadedModel`, without running anything the user has not vouched for."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgedeploy.errors import UntrustedCodeError
from edgedeploy.model.archive import check_members
from edgedeploy.model.container import Container, sniff
from edgedeploy.model.loaded import LoadedModel
from edgedeploy.model.options import LoadOptions


def load_model(path: str | Path, options: LoadOptions | None = None) -> LoadedModel:
    """Load a trained model from a file whose container is told by its bytes.

    Args:
        path: .pt2 archive, TorchScript, state_dict, checkpoint, safetensors, pickled module or ONNX.
        options: inputs, architecture and trust.

    Raises:
        UntrustedCodeError: where loading would run code that ``options`` does not vouch for.
        InputError: where the file is missing, damaged, hostile, holds NaN or Inf weights, or lacks what ``options``
            must then give.
    """
    path = Path(path)
    options = options or LoadOptions()
    container = sniff(path)
    if container in (Container.EXPORTED_PROGRAM, Container.TORCHSCRIPT, Container.PICKLE):
        check_members(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if container is Container.ONNX:
        from edgedeploy.model.finite import check_finite_onnx
        from edgedeploy.model.onnx_source import OnnxSource, read_onnx

        model = read_onnx(path)
        check_finite_onnx(path, model)
        return LoadedModel(path.stem, "onnx", path, sha256, options, OnnxSource(path, model, options.inputs))
    from edgedeploy.model import torch_files

    if container is Container.EXPORTED_PROGRAM:
        kind, source = "exported_program", torch_files.from_exported_program(path, options)
    elif container is Container.TORCHSCRIPT:
        if not (options.trust_code or options.unsafe_load):
            raise UntrustedCodeError(
                f"{str(path)!r} is TorchScript, which is a program: loading and running it runs its code.",
                found="an archive with code/ and constants.pkl",
                remedy="If you trust where it comes from, add --trust-code; else ask for a state_dict or a .pt2.",
            )
        kind, source = "torchscript", torch_files.from_torchscript(path, options)
    elif container is Container.SAFETENSORS:
        kind, source = "safetensors", torch_files.from_safetensors(path, options)
    else:
        kind, source = torch_files.from_pickle(path, options, legacy=container is Container.LEGACY_PICKLE)
    return LoadedModel(path.stem, kind, path, sha256, options, source)
