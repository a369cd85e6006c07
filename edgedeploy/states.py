"""Streaming state: which outputs come back as inputs at the next step, and how a loop feeds them back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.errors import InputError
from edgedeploy.tensors import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Words of a name that say which side of a step it is on, not which state it is.
_SIDES = frozenset(
    ["in", "out", "input", "output", "new", "old", "next", "prev", "previous", "past", "present", "init", "initial",
     "updated", "final", "last", "current", "n", "t"]
)  # fmt: skip
_SHORT = {"hn": "h", "cn": "c", "hx": "h", "cx": "c", "states": "state", "caches": "cache"}
#: What an unnamed output (``output_1``) may be the next value of.
_STATE_WORDS = frozenset(["h", "c", "hidden", "cell", "state", "cache", "memory", "mem", "buffer", "carry", "rnn"])
#: What a stream is made of: an ``audio_out`` of the size of ``audio_in`` is the next frame of nothing.
_SIGNALS = frozenset(
    ["x", "y", "audio", "data", "feature", "features", "frame", "ids", "image", "img", "mel", "noisy", "pixels",
     "signal", "spec", "spectrum", "speech", "token", "tokens", "video", "wav", "wave", "waveform"]
)  # fmt: skip


@dataclass(frozen=True)
class States:
    """The state of a model.

    Attributes:
        pairs: input by output: what an output gives is what the input takes at the next step.
        declared: deploy.toml says so; otherwise names and shapes do.
        notes: for the report, how they were found.
    """

    pairs: Mapping[str, str] = field(default_factory=dict)
    declared: bool = False
    notes: tuple[str, ...] = ()


def find_states(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], declared: Mapping[str, str] | None
) -> States:
    """The states that deploy.toml declares, else those that names and shapes leave no doubt of.

    Args:
        inputs, outputs: of the captured model.
        declared: the table ``[state]``, input by output; empty where there is no state, ``None`` without the table.

    Raises:
        InputError: a declared name that the model does not have, one that is fed twice, or another shape or dtype.
    """
    if declared is not None:
        _check(inputs, outputs, declared)
        return States(dict(declared), declared=True)
    pairs = _by_name(inputs, outputs)
    pairs |= _unnamed(inputs, outputs, pairs)
    if not pairs or len(pairs) == len(inputs):  # a stream takes something besides its own state
        return States()
    lines = ", ".join(f'{output} = "{name}"' for output, name in pairs.items())
    return States(
        pairs,
        notes=(
            f"taken for streaming state, by name and shape, and judged in the loop: {lines}; write it under [state] in "
            "deploy.toml, or an empty [state] where the model has none",
        ),
    )


def fed_back(
    sample: Mapping[str, NDArray[Any]], last: Mapping[str, NDArray[Any]] | None, states: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    """A sample whose state inputs hold what the last step gave; unchanged at the first step.

    Args:
        sample: by input name.
        last: the outputs of the step before, by output name.
        states: input by output.
    """
    fed = dict(sample)
    for output, name in states.items() if last is not None else ():
        assert last is not None
        fed[name] = np.asarray(last[output]).astype(sample[name].dtype).reshape(sample[name].shape)
    return fed


def zero_states(samples: Iterable[Mapping[str, NDArray[Any]]], states: Iterable[str]) -> tuple[str, ...]:
    """Of the state inputs, those that are zero in every sample: nothing can be learnt of their range."""
    silent = list(states)
    for sample in samples:
        silent = [name for name in silent if not np.any(sample[name])]
        if not silent:
            break
    return tuple(silent)


def finite_steps(outputs: Mapping[str, NDArray[Any]]) -> int:
    """The steps before the first NaN or Inf of any of them."""
    steps = min((len(value) for value in outputs.values()), default=0)
    for step in range(steps):
        for value in outputs.values():
            if value.dtype.kind == "f" and not np.isfinite(value[step]).all():
                return step
    return steps


def _check(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], declared: Mapping[str, str]) -> None:
    takes, gives = ({spec.name: spec for spec in specs} for specs in (inputs, outputs))
    for output, name in declared.items():
        if output not in gives or name not in takes:
            raise InputError(
                f'deploy.toml: [state] {output} = "{name}" names what the model does not have.',
                found=f"outputs: {', '.join(gives)}; inputs: {', '.join(takes)}",
                remedy='Write OUTPUT = "INPUT": what the output gives is what the input takes at the next step.',
            )
        if not _alike(takes[name], gives[output]):
            raise InputError(
                f'deploy.toml: [state] {output} = "{name}": the output cannot be the next value of the input.',
                found=f"{gives[output]} and {takes[name]}",
                remedy="A state has one shape and one type.",
            )
    if len(set(declared.values())) < len(declared):
        raise InputError("deploy.toml: [state] feeds one input from two outputs.", found=str(dict(declared)))


def _alike(one: TensorSpec, other: TensorSpec) -> bool:
    same = zip(one.shape, other.shape, strict=False)
    return (
        one.dtype == other.dtype
        and len(one.shape) == len(other.shape)
        and all(a == b or isinstance(a, str) or isinstance(b, str) for a, b in same)
    )


def _words(name: str) -> tuple[str, ...]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return tuple(_SHORT.get(word, word) for word in re.findall(r"[a-z]+|\d+", spaced.lower()))


def _base(name: str) -> tuple[str, ...]:
    return tuple(word for word in _words(name) if word not in _SIDES)


def _by_name(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> dict[str, str]:
    found: dict[str, str] = {}
    for spec in inputs:
        base = _base(spec.name)
        # ``h0`` and ``hn``: the 0 says which side it is on as well.
        names = {base, base[:-1]} if base[-1:] == ("0",) and len(base) > 1 else {base}
        matches = [item.name for item in outputs if _alike(spec, item) and _base(item.name) in names]
        if base and not set(base) <= _SIGNALS and len(matches) == 1:
            found[matches[0]] = spec.name if matches[0] not in found else ""
    return {output: name for output, name in found.items() if name}


def _unnamed(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], known: Mapping[str, str]) -> dict[str, str]:
    """Torch names no outputs: as many of a shape as there are inputs that are called a state, in the same order."""
    waiting = [spec for spec in inputs if spec.name not in known.values() and _STATE_WORDS & set(_words(spec.name))]
    unnamed = [spec for spec in outputs if re.fullmatch(r"output(_\d+)?", spec.name)]
    found: dict[str, str] = {}
    for spec in waiting:
        rivals = [item for item in waiting if _alike(item, spec)]
        matches = [item for item in unnamed if _alike(item, spec)]
        if len(rivals) == len(matches):
            found |= {match.name: rival.name for match, rival in zip(matches, rivals, strict=True)}
    return found
