"""What a written model needs: bytes alive at each operator, flash by layer, and the estimates made from them."""

from __future__ import annotations

from dataclasses import dataclass

from edgedeploy.exporters.tflite_micro.ir import ALIGNMENT, TfliteModel


@dataclass(frozen=True)
class Peak:
    """The operator at which most activation bytes are alive, and those tensors, largest first."""

    operator: str
    size_bytes: int
    tensors: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        alive = ", ".join(f"{name} {size:,} B" for name, size in self.tensors)
        return f"{self.size_bytes:,} bytes at {self.operator}: {alive}"


def peak_memory(model: TfliteModel) -> Peak:
    """The largest sum of live activations over the operators: no memory plan can need less."""
    last = _last_uses(model)
    born = dict.fromkeys(model.inputs, -1)
    for step, operator in enumerate(model.operators):
        for index in operator.outputs:
            born.setdefault(index, step)
    worst = Peak("nothing", 0, ())
    for step, operator in enumerate(model.operators):
        alive = {
            index: _aligned(model.tensors[index].size_bytes)
            for index, start in born.items()
            if start <= step <= last.get(index, start)
        }
        total = sum(alive.values())
        if total > worst.size_bytes:
            largest = sorted(alive.items(), key=lambda item: (-item[1], item[0]))
            names = tuple((model.tensors[index].name or f"tensor {index}", size) for index, size in largest)
            worst = Peak(f"{operator.builtin} ({operator.source})", total, names)
    return worst


def flash_by_layer(model: TfliteModel) -> tuple[tuple[str, int], ...]:
    """Constant bytes that each source node brings, largest first; a shared constant counts at its first reader."""
    seen: set[int] = set()
    layers: dict[str, int] = {}
    for operator in model.operators:
        for index in operator.inputs:
            if index < 0 or index in seen or model.tensors[index].data is None:
                continue
            seen.add(index)
            layers[operator.source] = layers.get(operator.source, 0) + model.tensors[index].size_bytes
    return tuple(sorted(layers.items(), key=lambda item: (-item[1], item[0])))


def _last_uses(model: TfliteModel) -> dict[int, int]:
    last: dict[int, int] = {}
    for step, operator in enumerate(model.operators):
        for index in operator.inputs:
            if index >= 0 and model.tensors[index].data is None:
                last[index] = step
    end = len(model.operators) - 1
    return {**last, **dict.fromkeys(model.outputs, end)}


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
