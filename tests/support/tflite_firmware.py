"""Firmware of a small dense network, and copies of the stand-in tree to link it with."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
from programs import needs
from tflite_cases import node
from tflite_graphs import FloatGraph, quantized

from edgedeploy.calibration.dataset import ArrayDataset
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.exporters.tflite_micro.contract import contract_of
from edgedeploy.exporters.tflite_micro.firmware.bundle import FirmwareModel, write_firmware
from edgedeploy.exporters.tflite_micro.firmware.check import COMPILER
from edgedeploy.exporters.tflite_micro.writer import write_tflite
from edgedeploy.interfaces import Artefact, RunJob
from edgedeploy.targets.tflite_micro.emulator import EMULATOR

STAND_IN = Path(__file__).parent / "tflm_stand_in"

needs_emulator = needs(COMPILER, EMULATOR, "cmake", "make")

WIDTHS = (64, 32, 10)
FAULTS = {"bad access": 1, "endless": 2, "wrong outputs": 3, "deep stack": 4, "error": 5}


def network() -> tuple[FloatGraph, np.ndarray]:
    """Two dense layers with a ReLU between them, and samples."""
    rng = np.random.default_rng(7)
    weights = {}
    for layer, (fan_in, out) in enumerate(pairwise(WIDTHS)):
        weights[f"w{layer}"] = (rng.standard_normal((out, fan_in)) / np.sqrt(fan_in)).astype(np.float32)
        weights[f"b{layer}"] = rng.standard_normal(out).astype(np.float32) / 10
    nodes = [
        node("Gemm", ["x", "w0", "b0"], ["h"], transB=1),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "w1", "b1"], ["y"], transB=1),
    ]
    samples = rng.uniform(-1, 1, (5, 1, WIDTHS[0])).astype(np.float32)
    return FloatGraph(nodes, (1, WIDTHS[0]), ["y"], weights), samples


def artefact_for(folder: Path, profile: str) -> Artefact:
    """A written artefact with its firmware folder, golden vectors still missing."""
    graph, samples = network()
    written = write_tflite(quantized(graph, samples))
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(written.content)
    artefact = Artefact("int8", folder, Path("model.tflite"), contract_of(written), "tflite")
    write_firmware(folder / "firmware", FirmwareModel.of("model", written, artefact.contract, load_profile(profile)))
    return artefact


def job_for(folder: Path, profile: str) -> RunJob:
    """A job over the network's samples."""
    folder.mkdir(parents=True, exist_ok=True)
    return RunJob(load_profile(profile), ArrayDataset({"x": network()[1][:, 0]}), folder, may_build=True)


def copy_of_stand_in(folder: Path, *, fault: str = "", clone: bool = False, cmsis_nn: bool = False) -> Path:
    """A copy of the stand-in tree.

    Args:
        fault: what its Invoke() does wrong, a key of `FAULTS`.
        clone: third-party code lies where a clone's own Makefile downloads it to, and sources everywhere.
        cmsis_nn: the tree holds (a stand-in of) CMSIS-NN.
    """
    shutil.copytree(STAND_IN, folder)
    if fault:
        set_fault(folder, fault)
    third_party = folder / "third_party"
    if clone:
        downloads = folder / "tensorflow/lite/micro/tools/make/downloads"
        downloads.parent.mkdir(parents=True)
        third_party = third_party.rename(downloads)
        like_a_clone(folder)
    if cmsis_nn:
        header = third_party / "cmsis_nn/Include/arm_nnfunctions.h"
        header.parent.mkdir(parents=True)
        header.write_text(
            '#pragma once\n#include <stdint.h>\n#ifdef __cplusplus\nextern "C"\n#endif\n'
            "int32_t arm_stand_in_dot4(const int8_t* input, int32_t zero_point, const int8_t* weights);\n"
        )
        source = third_party / "cmsis_nn/Source/Dot/arm_stand_in_dot4.c"
        source.parent.mkdir(parents=True)
        source.write_text(
            '#include "arm_nnfunctions.h"\n'
            "int32_t arm_stand_in_dot4(const int8_t* i, int32_t z, const int8_t* w) {\n"
            "  return (i[0] - z) * w[0] + (i[1] - z) * w[1] + (i[2] - z) * w[2] + (i[3] - z) * w[3];\n}\n"
        )
    return folder


#: Where a clone keeps sources of the library, and sources that are none of it.
_LIBRARY = (
    "tensorflow/compiler/mlir/lite/schema/schema_utils.cc",
    "tensorflow/lite/core/c/common.cc",
    "tensorflow/lite/micro/arena_allocator/single_arena_buffer_allocator.cc",
    "tensorflow/lite/micro/c/common.cc",
    "tensorflow/lite/micro/memory_planner/greedy_memory_planner.cc",
    "tensorflow/lite/micro/tflite_bridge/op_resolver_bridge.cc",
    "tensorflow/lite/micro/kernels/internal/reference/portable_tensor_utils.cc",
)
_OTHERS = (
    "tensorflow/lite/array.cc",
    "tensorflow/lite/experimental/microfrontend/lib/window.c",
    "tensorflow/lite/micro/micro_utils_test.cc",
    "tensorflow/lite/micro/cortex_m_generic/debug_log.cc",
    "tensorflow/lite/micro/examples/hello_world/main.cc",
    "tensorflow/lite/micro/kernels/conv_test_common.cc",
    "tensorflow/lite/micro/kernels/xtensa/conv.cc",
)


def like_a_clone(tree: Path) -> None:
    """Put sources in all the places of a clone: the library does not link without its own, nor compile with others."""
    calls = []
    for number, name in enumerate(_LIBRARY):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"int stand_in_part{number}() {{ return {number}; }}\n")
        calls.append(f"stand_in_part{number}()")
    for name in _OTHERS:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f'#error "{name} is no part of the library"\n')
    declared = "".join(f"int {call};\n" for call in calls)
    setup = tree / "tensorflow/lite/micro/system_setup.cc"
    body = f"volatile int parts;\nnamespace tflite {{\nvoid InitializeTarget() {{ parts = {' + '.join(calls)}; }}\n}}\n"
    setup.write_text(declared + body)


def set_fault(tree: Path, fault: str) -> None:
    """Make a copy's Invoke() do something wrong."""
    (tree / "stand_in_fault.h").write_text(f"#pragma once\n#define STAND_IN_FAULT {FAULTS[fault]}\n")
