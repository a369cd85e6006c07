"""Keeps traced op lists as one small JSON file, so that a re-fit does not build the networks again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from edgedeploy.graph.facts import OpFacts
from edgedeploy.tensors import TensorSpec


def load_facts(cache: Path) -> dict[str, tuple[OpFacts, ...]]:
    """Read the op lists of every network, tracing those that the file does not hold."""
    found = json.loads(cache.read_text()) if cache.exists() else {}
    from cost_model_networks import every, facts

    missing = [name for name in every() if name not in found]
    for name in missing:
        ops, parameters = facts(name)
        found[name] = {"parameters": parameters, "ops": [_pack(op) for op in ops]}
        print(f"traced {name}: {len(ops)} ops, {parameters / 1e6:.2f} M parameters", flush=True)
    if missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(found))
    return {name: tuple(_unpack(op) for op in found[name]["ops"]) for name in every()}


def _pack(op: OpFacts) -> dict:
    packed = asdict(op)
    for key in ("inputs", "outputs", "weights"):
        packed[key] = [[spec.name, list(spec.shape)] for spec in getattr(op, key)]
    return packed


def _unpack(packed: dict) -> OpFacts:
    fields = dict(packed)
    for key in ("inputs", "outputs", "weights"):
        fields[key] = tuple(TensorSpec(name, tuple(shape), "float32") for name, shape in packed[key])
    fields["attributes"] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in packed["attributes"].items()
    }
    return OpFacts(**fields)


def bare(name: str, ops: tuple[OpFacts, ...]) -> tuple[OpFacts, ...]:
    """The ops of a network without the normalization that only AI Hub measures with it."""
    from cost_model_networks import NORMALIZED

    return ops[2:] if name in NORMALIZED else ops
