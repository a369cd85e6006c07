"""`write_firmware` and `complete_firmware`: the sources before and after the interpreter has run."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.exporters.tflite_micro.estimates import kernel_margin
from edgedeploy.exporters.tflite_micro.firmware.boards import BOARDS, emulated_board
from edgedeploy.exporters.tflite_micro.firmware.cores import CORES
from edgedeploy.exporters.tflite_micro.firmware.identifiers import c_string, identifier, macro, resolver_method
from edgedeploy.exporters.tflite_micro.flatbuffer import operators_of
from edgedeploy.exporters.tflite_micro.ir import ALIGNMENT
from edgedeploy.exporters.tflite_micro.memory import peak_memory
from edgedeploy.exporters.tflite_micro.writer import WrittenModel
from edgedeploy.tensors import Contract, PortSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARENA_HEADER = "model_arena.h"
GOLDEN_SOURCE = "golden_vectors.h"

#: Stands in `ARENA_HEADER` and `GOLDEN_SOURCE` until the interpreter has run.
NOT_MEASURED = "NOT MEASURED"

#: Interpreter structures beside the planned activations, bytes: enough for a few dozen operators.
_STRUCTURES_BYTES = 4096

TEMPLATES = {
    "model_data.h": "model_data.h.j2",
    "model_data.cc": "model_data.cc.j2",
    "model.h": "model.h.j2",
    "op_resolver.h": "op_resolver.h.j2",
    "main.cc": "main.cc.j2",
    "CMakeLists.txt": "CMakeLists.txt.j2",
    "tflite_micro.cmake": "tflite_micro.cmake.j2",
    "README.md": "README.md.j2",
    "zephyr/module.yml": "zephyr_module.yml.j2",
    "zephyr/CMakeLists.txt": "zephyr_CMakeLists.txt.j2",
    "zephyr/Kconfig": "zephyr_Kconfig.j2",
}

#: For devices whose core GCC compiles for, and for those whose core QEMU emulates on a board.
_TOOLCHAIN = {"toolchain.cmake": "toolchain.cmake.j2"}
_EMULATED = {"emulated/startup.c": "startup.c.j2", "emulated/board.ld": "board.ld.j2"}

GOLDEN_COUNT = 3
"""Golden vectors that go into the firmware: enough to prove numerics, few enough for a small flash."""

_C_TYPES = {
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "uint8": "uint8_t",
    "float32": "float",
    "bool": "uint8_t",  # one byte of 0 or 1, as the runtime stores it
}


@dataclass(frozen=True)
class FirmwareModel:
    """What the templates need.

    Attributes:
        name: the model's own name, any text.
        content: the .tflite bytes.
        operators: distinct operators, sorted; "ethos-u" for what an NPU computes.
        contract: ports.
        peak_bytes: activations alive at the worst operator; on an NPU what its compiler planned.
        kernel_margin: extra arena of optimised kernels, as a fraction.
        device, cpu: from the profile.
        board: the board that QEMU emulates with this core; empty where it emulates none, or not the device's NPU.
        labels: class names of the judged output, if known.
        preprocessing: text by input name, for the integrator.
    """

    name: str
    content: bytes
    operators: tuple[str, ...]
    contract: Contract
    peak_bytes: int
    kernel_margin: float
    device: str
    cpu: str = ""
    board: str = ""
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        written: WrittenModel,
        contract: Contract,
        profile: DeviceProfile,
        *,
        content: bytes | None = None,
        peak_bytes: int | None = None,
        labels: Sequence[str] = (),
        preprocessing: Mapping[str, str] | None = None,
    ) -> FirmwareModel:
        """Collect it from a written model; ``content`` is what the device holds where that is another file."""
        return cls(
            name=name,
            content=written.content if content is None else content,
            operators=written.model.builtins if content is None else operators_of(content),
            contract=contract,
            peak_bytes=peak_memory(written.model).size_bytes if peak_bytes is None else peak_bytes,
            kernel_margin=kernel_margin(profile),
            device=profile.name,
            cpu=profile.hardware.cpu,
            board=emulated_board(profile),
            labels=tuple(labels),
            preprocessing=preprocessing or {},
        )


def write_firmware(folder: Path, model: FirmwareModel) -> None:
    """Write every source; the arena is planned, the golden vectors are missing until `complete_firmware`."""
    folder.mkdir(parents=True)
    templates = TEMPLATES | (_TOOLCHAIN if model.cpu in CORES else {}) | (_EMULATED if model.board else {})
    for target, template in templates.items():
        (folder / target).parent.mkdir(exist_ok=True)
        (folder / target).write_text(_render(template, model=model, **_common(model)), encoding="ascii")
    planned = _round_up(int(model.peak_bytes * (1 + model.kernel_margin)) + _STRUCTURES_BYTES)
    text = _render("model_arena.h.j2", arena=planned, measured=None, margin=model.kernel_margin, **_names(model.name))
    (folder / ARENA_HEADER).write_text(text, encoding="ascii")
    (folder / GOLDEN_SOURCE).write_text(_golden(model.name, (), ()), encoding="ascii")


def complete_firmware(
    folder: Path,
    name: str,
    arena: tuple[int, float] | None,
    inputs: Sequence[NDArray[Any]],
    outputs: Sequence[NDArray[Any]],
) -> bool:
    """Put in the golden vectors and the measured arena, once.

    Args:
        folder: what `write_firmware` wrote.
        name: the model's name, as given there.
        arena: the smallest arena that worked on this host and the fraction that the device's kernels add; ``None``
            where the device plans its memory otherwise (an NPU).
        inputs, outputs: stored codes by port, shape (samples, *stored shape).

    Returns:
        False, nothing touched, where that was done before: a bundle's files do not change.
    """
    golden = folder / GOLDEN_SOURCE
    if not golden.is_file() or NOT_MEASURED not in golden.read_text(encoding="ascii"):
        return False
    if arena is not None:
        measured, margin = arena
        total = _round_up(int(measured * (1 + margin)))
        text = _render("model_arena.h.j2", arena=total, measured=measured, margin=margin, **_names(name))
        (folder / ARENA_HEADER).write_text(text, encoding="ascii")
    count = min(GOLDEN_COUNT, len(inputs[0]))
    text = _golden(name, [array[:count] for array in inputs], [array[:count] for array in outputs])
    golden.write_text(text, encoding="ascii")
    return True


def shipped_arena(folder: Path) -> tuple[int, int]:
    """The arena in a completed firmware folder, bytes: what the host's interpreter needed, and what is reserved."""
    text = (folder / ARENA_HEADER).read_text(encoding="ascii")
    measured, reserved = (int(re.findall(rf"_ARENA_{word} (\d+)", text)[0]) for word in ("MEASURED", "SIZE"))
    return measured, reserved


def vector_crc(inputs: Sequence[NDArray[Any]]) -> int:
    """CRC-32 of one sample's stored inputs, in port order: how a board's report names its golden vectors."""
    crc = 0
    for array in inputs:
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    return crc


def _golden(name: str, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> str:
    count = len(inputs[0]) if inputs else 0
    crcs = [vector_crc([array[sample] for array in inputs]) for sample in range(count)]
    return _render(
        "golden_vectors.h.j2",
        count=count,
        crcs=crcs,
        inputs=[_array(array) for array in inputs],
        outputs=[_array(array) for array in outputs],
        **_names(name),
    )


@dataclass(frozen=True)
class _CArray:
    c_type: str
    each: int
    rows: tuple[str, ...]


def _array(array: NDArray[Any]) -> _CArray:
    flat = array.reshape(len(array), -1)
    if flat.dtype == np.bool_:
        flat = flat.astype(np.uint8)
    return _CArray(_C_TYPES[str(array.dtype)], flat.shape[1], tuple(", ".join(map(str, row.tolist())) for row in flat))


def _names(name: str) -> dict[str, str]:
    return {"ident": identifier(name), "guard": macro(name), "title": c_string(name)}


def _common(model: FirmwareModel) -> dict[str, Any]:
    return {
        **_names(model.name),
        "board": BOARDS[model.board] if model.board else None,
        "flags": " ".join(CORES.get(model.cpu, ())),
        "sha256": hashlib.sha256(model.content).hexdigest(),
        "rows": _hex_rows(model.content),
        "methods": [resolver_method(operator) for operator in model.operators],
        "inputs": [_port(port, index) for index, port in enumerate(model.contract.inputs)],
        "outputs": [_port(port, index) for index, port in enumerate(model.contract.outputs)],
    }


def _port(port: PortSpec, index: int) -> dict[str, Any]:
    return {
        "index": index,
        "name": c_string(port.source_name),
        "source_name": port.source_name,
        "shape": port.shape,
        "elements": int(np.prod([int(size) for size in port.shape])),
        "layout": port.layout,
        "dtype": port.dtype,
        "c_type": _C_TYPES[port.dtype],
        "scale": None if port.scale is None else float(np.float32(port.scale)),
        "zero_point": port.zero_point,
    }


def _hex_rows(content: bytes) -> list[str]:
    return [", ".join(f"0x{byte:02x}" for byte in content[start : start + 16]) for start in range(0, len(content), 16)]


def _round_up(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C sources: names pass through c_string and identifier
    )
    environment.filters["c_string"] = c_string
    return environment


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(not_measured=NOT_MEASURED, **values)
