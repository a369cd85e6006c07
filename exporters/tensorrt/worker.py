"""The process in which NVIDIA's parser and builder run: ``python -m edgedeploy.exporters.tensorrt.worker``.

Some graphs kill it (a run-time scale crashes the builder), so the gate never runs it in its own process. The request
is a JSON file, the answer another; the node being parsed is written to stderr as it starts, so that the parent
can name it after a crash.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from edgedeploy.exporters.tensorrt.bindings import tensorrt_rtx
from edgedeploy.sandbox.ties import die_with_starter

#: Marks the lines of stderr that say which node is being parsed.
NODE_MARK = "edgedeploy-parsing "
_PARSING = "Parsing node: "


def main(request_path: Path) -> None:
    """Parse and, where asked, build; write the answer beside the request as ``answer.json``."""
    request = json.loads(request_path.read_text())
    answer = _work(request)
    request_path.with_name("answer.json").write_text(json.dumps(answer))


def _work(request: dict[str, Any]) -> dict[str, Any]:
    trt = tensorrt_rtx()
    logger, messages = _logger(trt)
    builder = trt.Builder(logger)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    data = Path(request["onnx"]).read_bytes()
    answer: dict[str, Any] = {"version": trt.__version__, "accepted": False, "stage": "parse", "errors": []}

    # supports_model_v2 leaves its network filled, so a fresh one is parsed for building; both must outlive
    # their parsers, which do not keep them alive.
    probed = builder.create_network(flags)
    probe = trt.OnnxParser(probed, logger)
    supported = probe.supports_model_v2(data)
    network = builder.create_network(flags)
    network.name = "model"  # else it is numbered, and the number is in the engine
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(data)
    if not (supported and parsed):
        source = parser if parser.num_errors else probe
        answer["errors"] = [_parser_error(source.get_error(index)) for index in range(source.num_errors)]
        return answer
    answer["network_layers"] = network.num_layers
    if not request["build"]:
        return {**answer, "accepted": True}

    answer["stage"] = "build"
    sys.stderr.write(f"{NODE_MARK}\n")
    messages.clear()
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, request["compute_capability"]), 0)
    if request["ranges"]:
        profile = builder.create_optimization_profile()
        for name, (low, opt, high) in request["ranges"].items():
            profile.set_shape(name, low, opt, high)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    severe = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
    answer["layers"] = [text for _, text in messages if text.startswith("Layers:")]
    if engine is None:
        answer["errors"] = [{"node": "", "op": "", "reason": text} for kind, text in messages if kind in severe]
        return answer
    answer["engine_bytes"] = engine.nbytes
    if request["engine"]:
        Path(request["engine"]).write_bytes(bytes(engine))
    return {**answer, "accepted": True}


def _logger(trt: Any) -> tuple[Any, list[tuple[Any, str]]]:
    messages: list[tuple[Any, str]] = []

    class Log(trt.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if text.startswith(_PARSING):
                os.write(2, f"{NODE_MARK}{text[len(_PARSING) :]}\n".encode())
            elif text.startswith("Layers:") or severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append((severity, text))

    return Log(), messages


def _parser_error(error: Any) -> dict[str, str]:
    return {"node": error.node_name(), "op": error.node_operator(), "reason": error.desc()}


if __name__ == "__main__":
    die_with_starter()
    main(Path(sys.argv[1]))
