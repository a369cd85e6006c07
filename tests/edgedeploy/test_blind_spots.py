"""Ways to ruin an artefact's outputs, on every kind of output that people deploy: none passes the default gates.

Each pair of a damage and a kind must fail a gate or stay unverified, or stand in `HARMLESS` with the reason why it is
no damage. Undamaged outputs with the noise of an INT8 artefact must pass on every kind.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from edgedeploy.compare import compare
from edgedeploy.device_profiles.loader import load_profile
from edgedeploy.errors import ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.judge import Outcome, judge_quality

SAMPLES = 48
GATES = load_profile("stm32l4r5").quality
#: Class axis, counted with the samples axis, of the outputs that the graph ends in a linear layer or a softmax.
CLASSES = {"logits": 2, "probabilities": 2, "masked": 2, "tokens": 3, "segmentation": 2}


def _softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _smooth(rng, *shape):
    """Fields that change slowly along their last two axes, as images do."""
    values = rng.normal(size=shape)
    for axis in (-1, -2):
        values = values + np.roll(values, 1, axis) + np.roll(values, 2, axis)
    return values


@cache
def kinds():
    """Reference outputs by kind: a dict of float32, int64 or bool arrays of shape (samples, 1, …)."""
    rng = np.random.default_rng(12)

    def normal(*shape):
        return rng.normal(size=(SAMPLES, 1, *shape))

    def scores(*shape):
        """Logits of a net that is mostly sure."""
        values = normal(*shape)
        np.put_along_axis(values, rng.integers(0, shape[-1], values.shape[:-1])[..., None], 5.0, -1)
        return values

    masked = scores(12)
    masked[:, :, 4] = masked[:, :, 9] = -np.inf
    boxes = np.concatenate([rng.uniform(0, 640, (SAMPLES, 1, 4, 25)), rng.beta(0.4, 2, (SAMPLES, 1, 3, 25))], 2)
    fields = _smooth(rng, SAMPLES, 1, 5, 16, 16)
    walk = np.cumsum(normal(20), 0)
    found = {
        "class logits": {"logits": scores(10)},
        "class probabilities": {"probabilities": _softmax(0.6 * scores(10))},
        "one value": {"value": 1 / (1 + np.exp(-2 * normal(1)))},
        "300 ± 1": {"kelvin": 300 + normal(1)},
        "metres and radians": {"pose": normal(4) * [50, 50, 0.2, 0.2]},
        "boxes and scores in one tensor": {"boxes": boxes},
        "boxes, scores and classes": {
            "boxes": rng.uniform(0, 640, (SAMPLES, 1, 12, 4)),
            "scores": rng.uniform(0, 1, (SAMPLES, 1, 12)),
            "classes": rng.integers(0, 20, (SAMPLES, 1, 12)),
        },
        "image to image": {"image": _smooth(rng, SAMPLES, 1, 3, 16, 16)},
        "segmentation logits": {"segmentation": fields + 6 * (fields == fields.max(2, keepdims=True))},
        "segmentation map": {"map": _smooth(rng, SAMPLES, 1, 5, 16, 16).argmax(2)},
        "embedding": {"embedding": normal(128)},
        "sequence logits": {"tokens": scores(14, 30)},
        "masked logits": {"masked": masked},
        "state and output": {"output": normal(16), "h": np.tanh(normal(2, 16)), "c": 40 * normal(2, 16)},
        "class number": {"class": rng.integers(0, 10, (SAMPLES, 1))},
        "booleans": {"flags": rng.random((SAMPLES, 1, 20)) < 0.1},
        "audio": {"audio": 0.3 * normal(400)},
        "slow signal": {"level": 5 * walk},
    }  # fmt: skip
    return {
        kind: {
            name: np.asarray(value, np.float32) if value.dtype.kind == "f" else value for name, value in outs.items()
        }
        for kind, outs in found.items()
    }


def _floats(change):
    """A damage of float outputs; integers and booleans get another value wherever it would be another."""

    def apply(outputs):
        return {
            name: change(value.copy()) if value.dtype.kind == "f" else _other(value) for name, value in outputs.items()
        }

    return apply


def _each(change):
    return lambda outputs: {name: change(value.copy()) for name, value in outputs.items()}


def _other(value):
    return ~value if value.dtype == bool else (value + 1) % (value.max() + 1)


def _spread(value):
    return np.where(np.isfinite(value), value, 0).std(axis=0, keepdims=True)


def _mean(value):
    known = np.isfinite(value)
    count = known.sum(0, keepdims=True)
    return np.where(count > 0, np.where(known, value, 0).sum(0, keepdims=True) / np.maximum(count, 1), np.nan)


def _blank(value):
    return np.zeros_like(value)


def _channel(value):
    return value.ndim - 1 if value.ndim <= 3 else 2


def _dead_channel(value):
    axis = _channel(value)
    place = [slice(None)] * value.ndim
    place[axis] = 0
    value[tuple(place)] = 0 if value.dtype.kind != "f" else _mean(value)[(0, *place[1:])]
    return value


def _swapped_channels(value):
    order = np.arange(value.shape[_channel(value)])
    order[:2] = order[:2][::-1]
    return np.take(value, order, _channel(value))


def _one_sample(value):
    value[7] = _other(value)[7] if value.dtype.kind != "f" else (2 * _mean(value)[0] - value[7])
    return value


def _codes(value, levels):
    finite = value[np.isfinite(value)]
    low, high = finite.min(), finite.max()
    step = (high - low) / (levels - 1) or 1
    return np.where(np.isfinite(value), np.round((value - low) / step) * step + low, value).astype(np.float32)


def _clip(value):
    middle, half = _mean(value), 0.5 * _spread(value)
    return np.where(np.isfinite(value), np.clip(value, middle - half, middle + half), value).astype(np.float32)


def _noise(value, db, seed=5):
    """Noise of a given centred SQNR, per element by its spread."""
    rng = np.random.default_rng(seed)
    noisy = value + _spread(value) * 10 ** (-db / 20) * rng.normal(size=value.shape)
    return np.where(np.isfinite(value), noisy, value).astype(np.float32)


def _one_element(value):
    flat = value.reshape(len(value), -1)
    flat[:, 0] = _other(flat)[:, 0] if value.dtype.kind != "f" else 10 * np.abs(flat[np.isfinite(flat)]).max()
    return value


def _top_zeroed(value):
    np.put_along_axis(value, value.argmax(-1)[..., None], 0, -1)
    return value


def _set(number, where=slice(None)):
    def change(value):
        value.reshape(-1)[where] = number
        return value

    return _floats(change)


def _other_kind(value):
    return value.astype(np.float32) if value.dtype.kind != "f" else np.where(np.isfinite(value), value, 0).astype(int)


def _first_for_all(value):
    return np.repeat(value[:1], len(value), 0)


def _rotated_outputs(outputs):
    names = [name for name, value in outputs.items()]
    return {name: outputs[other] for name, other in zip(names, names[1:] + names[:1], strict=True)}


def _copied_outputs(outputs):
    return {name: next(iter(outputs.values())) for name in outputs}


DAMAGES = {
    "scaled": _floats(lambda value: value * np.float32(1.6)),
    "scaled to a tenth": _floats(lambda value: value * np.float32(0.1)),
    "shifted": _floats(lambda value: (value + 1.0 * _spread(value)).astype(np.float32)),
    "sign flipped": _floats(lambda value: -value),
    "one channel dead": _each(_dead_channel),
    "channels swapped": _each(_swapped_channels),
    "classes permuted": _each(lambda value: np.roll(value, 1, -1)),
    "classes reversed": _each(lambda value: np.flip(value, -1).copy()),
    "one sample wrong": _each(_one_sample),
    "samples permuted": _each(lambda value: np.roll(value, 11, 0)),
    "delayed by one sample": _each(lambda value: np.concatenate([value[:1], value[:-1]])),
    "delayed by one element": _each(lambda value: np.roll(value.reshape(len(value), -1), 1, 1).reshape(value.shape)),
    "first answer for ever": _each(_first_for_all),
    "mean answer": _floats(lambda value: np.repeat(_mean(value), len(value), 0).astype(np.float32)),
    "zeros": _each(_blank),
    "ones": _each(np.ones_like),
    "saturated": _floats(_clip),
    "two bits": _floats(lambda value: _codes(value, 4)),
    "one bit": _floats(lambda value: _codes(value, 2)),
    "noise at 6 dB": _floats(lambda value: _noise(value, 6)),
    "only noise": _floats(lambda value: np.random.default_rng(1).normal(size=value.shape).astype(np.float32)),
    "rounded to integers": _floats(np.round),
    "NaN everywhere": _set(np.nan),
    "one NaN": _set(np.nan, 3),
    "one infinity": _set(np.inf, 3),
    "one minus infinity": _set(-np.inf, 0),
    "overflown to 1e38": _set(3e38, 3),
    "one element wrong in every sample": _each(_one_element),
    "top class zeroed": _floats(_top_zeroed),
    "transposed": _each(lambda v: np.swapaxes(v, -1, -2).copy() if v.shape[-1] == v.shape[-2] else v),
    "off by one": lambda outputs: {k: v + 1 if v.dtype.kind == "i" else v for k, v in outputs.items()},
    "booleans flipped": lambda outputs: {k: ~v if v.dtype == bool else v for k, v in outputs.items()},
    "another shape": _each(lambda value: value[..., :0]),
    "another kind of number": _each(_other_kind),
    "an output missing": lambda outputs: dict(list(outputs.items())[1:]),
    "outputs exchanged": _rotated_outputs,
    "one output copied to all": _copied_outputs,
    "half of the batch dead": _each(lambda v: np.concatenate([v[: len(v) // 2], _blank(v[len(v) // 2 :])])),
    "stale every second sample": _each(lambda v: np.repeat(v[::2], 2, 0)[: len(v)]),
}  # fmt: skip

_COARSE = "its spread is several units: rounding is less than INT8 noise may be, and the classes stay"
#: Pairs that are no damage, and why.
HARMLESS = {
    ("rounded to integers", "class logits"): _COARSE,
    ("rounded to integers", "masked logits"): _COARSE,
    ("rounded to integers", "sequence logits"): _COARSE,
    ("rounded to integers", "segmentation logits"): _COARSE,
    ("rounded to integers", "image to image"): _COARSE,
    ("rounded to integers", "slow signal"): _COARSE,
    ("top class zeroed", "embedding"): "it has no classes: one of 128 elements is 0, an error of 12 dB or less",
    ("top class zeroed", "audio"): "it has no classes: one of 400 elements is 0, an error of less than 12 dB",
    ("one sample wrong", "class number"): "one class of 48 is what a near tie costs; min_agreement allows it as well",
    ("stale every second sample", "slow signal"): "it moves less from one sample to the next than noise may be",
}


def judged(reference, outputs):
    """Verdicts of the gates that apply; a refusal to compare counts as one that failed."""
    try:
        found = compare(reference, outputs, class_outputs={k: v for k, v in CLASSES.items() if k in reference})
    except ToolFailedError:
        return {"shape": Outcome.FAIL}
    verdicts = judge_quality(GATES, found, Evidence.SIMULATOR)
    return {item.name: item.outcome for item in verdicts if item.outcome is not Outcome.NOT_APPLICABLE}


def unchanged(reference, outputs):
    return list(reference) == list(outputs) and all(
        outputs[name].shape == value.shape
        and outputs[name].dtype == value.dtype
        and np.array_equal(outputs[name], value)
        for name, value in reference.items()
    )


def test_the_suite_is_wide():
    assert len(DAMAGES) >= 25 and len(kinds()) >= 15
    assert all(damage in DAMAGES and kind in kinds() and why for (damage, kind), why in HARMLESS.items())
    pairs = [(damage, kind) for kind in kinds() for damage in DAMAGES if not is_same(damage, kind)]
    print(f"{len(DAMAGES)} damages, {len(kinds())} kinds of output: {len(pairs)} pairs that change something")
    assert len(pairs) >= 500


def is_same(damage, kind):
    reference = kinds()[kind]
    return unchanged(reference, DAMAGES[damage]({name: value.copy() for name, value in reference.items()}))


@pytest.mark.parametrize("kind", kinds())
def test_no_damage_passes(kind):
    reference = kinds()[kind]
    passed = []
    for damage, change in DAMAGES.items():
        outputs = change({name: value.copy() for name, value in reference.items()})
        if unchanged(reference, outputs) or (damage, kind) in HARMLESS:
            continue
        if set(judged(reference, outputs).values()) <= {Outcome.PASS}:
            passed.append(damage)
    assert not passed


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("db", [25, 30, 40])
def test_the_noise_of_int8_passes(kind, db):
    reference = kinds()[kind]
    outputs = {name: _noise(value, db) if value.dtype.kind == "f" else value for name, value in reference.items()}
    assert set(judged(reference, outputs).values()) == {Outcome.PASS}, judged(reference, outputs)
