"""Robust log-space fits of the latency coefficients, shrunk towards the family's geometric-mean device.

First one set of coefficients is fitted to the geometric mean of all devices of a family, with wide log-normal priors;
then each device is shrunk towards it, moved by the device's mean speed. Where devices share software stacks, the stack
stands between the two. The same functions serve the fit that goes into the profiles and the cross-validation.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from cost_model_cache import bare
from cost_model_rows import Row
from scipy.optimize import least_squares

from edgedeploy.device_profiles.schema import LatencyCoefficients
from edgedeploy.precision import Precision
from edgedeploy.targets.cost.forms import FORMS
from edgedeploy.targets.cost.latency import layer_times
from edgedeploy.targets.cost.layers import layers
from edgedeploy.targets.cost.peers import Peers, correction, groups, position
from edgedeploy.targets.cost.work import work

NAMES = (
    "fixed_us", "io_us_per_kb", "op_us", "compute_gmacs_s", "memory_gb_s", "vector_gb_s", "depthwise_ratio",
    "attention_ratio",
)  # fmt: skip
#: Coefficients that are times grow with a slow device, rates shrink.
_TIMES, _RATES = [0, 1, 2], [3, 4, 5]
_KNEE = 0.25  # residuals beyond 25 % count linearly, so that one odd row cannot bend a device


def mean_known(logs: np.ndarray, axis: int, **options) -> np.ndarray:
    """The mean of what was measured, NaN where nothing was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(logs, axis, **options)


@dataclass(frozen=True)
class Family:
    """Devices that share priors: a form of the model in one precision.

    Attributes:
        start, width: prior medians and log-standard-deviations of the geometric-mean device, in `NAMES` order.
        shrink: log-standard-deviation of a device around the mean device (around its stack, where there are stacks).
        stack_shrink: of a stack around the mean device.
        noise: log-standard-deviation of a measurement around the model.
        odd_rows: some networks hit a slow path of the compiler that no form knows: far misses count less and less
            (Cauchy's loss), and predictions are corrected by measured networks that are like them.
    """

    name: str
    form: str
    precision: Precision
    start: tuple[float, ...]
    width: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 0.7, 0.5)
    shrink: float = 0.35
    stack_shrink: float = 1.0
    noise: float = 0.2
    odd_rows: bool = False


class Bench:
    """The networks of one family as concatenated arrays."""

    def __init__(self, family: Family, facts, networks: Sequence[str], *, plain: bool = False) -> None:
        ops = [facts[name] if family.form == "npu" else bare(name, facts[name]) for name in networks]
        executed = [layers(item) for item in ops]
        works = [
            work(item, layer, FORMS[family.form], family.precision) for item, layer in zip(ops, executed, strict=True)
        ]
        self.networks, self.works, self.groups = list(networks), works, [groups(item) for item in executed]
        self.owner = np.concatenate([np.full(len(item.macs), index) for index, item in enumerate(works)])
        self.macs, self.vector, self.memory, self.calls, self.unit = (
            np.concatenate([getattr(item, key) for item in works])
            for key in ("macs", "vector", "memory", "calls", "unit")
        )
        self.io_kb = np.array([item.io_kb for item in works])
        self.depthwise, self.attention = self.unit == 2, self.unit == 1

    def predict(self, logs: np.ndarray) -> np.ndarray:
        """Latency of every network, µs."""
        fixed, io, op, compute, memory, vector, depthwise, attention = np.exp(logs)
        ratio = np.where(self.depthwise, depthwise, np.where(self.attention, attention, 1.0))
        busy = self.macs * ratio / (compute * 1e3) + self.vector / (vector * 1e3)
        each = np.maximum(busy, self.memory / (memory * 1e3)) + op * self.calls
        return np.bincount(self.owner, each, minlength=len(self.io_kb)) + fixed + io * self.io_kb

    def positions(self, logs: np.ndarray) -> np.ndarray:
        """Where every network lies among its peers, shape (networks, 14)."""
        rates = LatencyCoefficients(**dict(zip(NAMES, np.exp(logs), strict=True)), band90=1)
        return np.array(
            [position(group, layer_times(item, rates)) for group, item in zip(self.groups, self.works, strict=True)]
        )


@dataclass
class Table:
    """log µs, shape (devices, networks); NaN where nothing was measured."""

    devices: list[str]
    networks: list[str]
    logs: np.ndarray


def table(rows: Iterable[Row], exclude: Callable[[str], bool] = lambda name: False) -> Table:
    """Arrange rows; several of one cell are averaged in log space."""
    rows = [row for row in rows if not exclude(row.network)]
    devices, networks = sorted({row.device for row in rows}), sorted({row.network for row in rows})
    total = np.zeros((len(devices), len(networks)))
    count = np.zeros_like(total)
    for row in rows:
        cell = devices.index(row.device), networks.index(row.network)
        total[cell] += np.log(row.latency_ms * 1e3)
        count[cell] += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return Table(devices, networks, np.where(count > 0, total / count, np.nan))


#: Log coefficients of a mean device (8,) and of each device (devices, 8).
Fit = tuple[np.ndarray, np.ndarray]


def fit_family(
    family: Family,
    bench: Bench,
    logs: np.ndarray,
    start: Fit | None = None,
    *,
    stacks: Sequence[str] = (),
    around: Fit | None = None,
) -> Fit:
    """Fit the mean device and every device; columns of ``logs`` that are all NaN are left out.

    Args:
        start: where the solver starts; the solution does not depend on it.
        stacks: the software stack of each device, where several devices share one.
        around: the same devices in another precision; then ``family.start`` is a factor on their mean, and a device
            differs from the mean as it does there.

    Returns:
        log coefficients of the mean device (8,) and of each device (devices, 8).
    """
    seen = ~np.isnan(logs).all(0)
    speed = _speeds(logs)
    centre_prior = np.log(family.start) + (around[0] if around else 0)
    width, shrink = np.array(family.width), np.minimum(family.shrink, family.width)
    level = _stack_means(logs - speed[:, None], stacks) if stacks else logs - speed[:, None]
    mean = mean_known(level[:, seen], 0)
    centre = _fit(bench, np.flatnonzero(seen), mean, centre_prior, width, family, start and start[0])
    if len(logs) == 1 and not around:
        return centre, centre[None]  # one device is its own mean: it must not count twice
    if around:
        priors = centre + around[1] - around[0]
    elif stacks:
        priors = _stack_priors(family, bench, logs, speed, centre, stacks)
    else:
        priors = np.array([_at_speed(centre, slower) for slower in speed])
    devices = []
    for index, row in enumerate(logs):
        known = np.flatnonzero(~np.isnan(row))
        first = start and start[1][index]
        devices.append(_fit(bench, known, row[known], priors[index], shrink, family, first))
    return centre, np.array(devices)


def _at_speed(logs: np.ndarray, slower: float) -> np.ndarray:
    """The same device, slower by that log factor: times grow, rates shrink."""
    moved = logs.copy()
    moved[_TIMES] += slower
    moved[_RATES] -= slower
    return moved


def _stack_means(level: np.ndarray, stacks: Sequence[str]) -> np.ndarray:
    """One row a stack, so that a stack on many boards does not count many times."""
    names = np.array(stacks)
    with np.errstate(all="ignore"):
        return np.array([mean_known(level[names == name], 0) for name in sorted(set(stacks))])


def _stack_priors(family, bench, logs, speed, centre, stacks) -> np.ndarray:
    """Each device's prior: its stack, fitted to the mean of the stack's boards, at the board's speed."""
    priors = np.empty((len(logs), len(NAMES)))
    names = np.array(stacks)
    width = np.minimum(family.stack_shrink, family.width)
    for name in sorted(set(stacks)):
        boards = np.flatnonzero(names == name)
        own = _speeds(logs[boards])
        with np.errstate(all="ignore"):
            mean = mean_known(logs[boards] - own[:, None], 0)
        known = np.flatnonzero(~np.isnan(mean))
        prior = _at_speed(centre, speed[boards].mean())
        stack = _fit(bench, known, mean[known], prior, width, family, None)
        priors[boards] = [_at_speed(stack, slower) for slower in own]
    return priors


def _speeds(logs: np.ndarray) -> np.ndarray:
    """Log slowness of each device against the mean, from the networks they share (two-way means, iterated)."""
    speed = np.zeros(len(logs))
    for _ in range(20):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a held-out network has no mean
            network = mean_known(logs - speed[:, None], 0)
            speed = mean_known(logs - network, 1)
    return speed - speed.mean()


def _fit(bench, index, logs, prior, width, family, start) -> np.ndarray:
    def residuals(p, odd_rows=False):
        miss = np.log(bench.predict(p)[index]) - logs
        far = (miss / _KNEE) ** 2
        soft = np.sign(miss) * _KNEE * np.sqrt(np.log1p(far) if odd_rows else 2 * (np.sqrt(1 + far) - 1))
        return np.concatenate([soft / family.noise, (p - prior) / width])

    found = least_squares(residuals, prior if start is None else start, method="lm", max_nfev=300).x
    if not family.odd_rows:
        return found
    return least_squares(residuals, found, method="lm", max_nfev=200, args=(True,), diff_step=1e-3).x


def peer_table(bench: Bench, logs: np.ndarray, fit: Fit) -> Peers:
    """The networks that have measurements: where they lie, and what the form misses, over all devices."""
    centre, devices = fit
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ratio = mean_known(logs - np.log([bench.predict(device) for device in devices]), 0)
    known = ~np.isnan(ratio)
    return Peers(bench.positions(centre)[known], ratio[known])


def corrections(bench: Bench, centre: np.ndarray, peers: Peers) -> np.ndarray:
    """Log factors on the predictions of a bench's networks."""
    return np.array([correction(at, peers) for at in bench.positions(centre)])


@dataclass
class Errors:
    """log(predicted / measured) of held-out cells, with the predictions, shape (devices, networks)."""

    errors: np.ndarray
    predicted: np.ndarray

    @property
    def flat(self) -> np.ndarray:
        """Every known cell."""
        return self.errors[~np.isnan(self.errors)]

    def percent(self) -> tuple[float, float]:
        """Median and 90th-percentile absolute percentage error."""
        ape = np.abs(np.expm1(self.flat)) * 100
        return float(np.median(ape)), float(np.quantile(ape, 0.9))

    def band90(self) -> float:
        """The factor that 90 % of held-out cells lie within."""
        return float(np.exp(np.quantile(np.abs(self.flat), 0.9)))


def cross_validate(
    family: Family,
    bench: Bench,
    logs: np.ndarray,
    held_together: Sequence[str],
    *,
    shared=False,
    stacks: Sequence[str] = (),
    around: Callable[[set[str]], Fit] | None = None,
) -> Errors:
    """Leave out all networks of one group at a time, in the mean device and in every device.

    Args:
        held_together: by network: its own name (leave-one-model-out) or its architecture family.
        shared: one shape for all devices, each with a scale of its own.
        stacks: see `fit_family`.
        around: the fit in the other precision without the networks of these names.
    """
    full = None if stacks else fit_family(family, bench, logs, around=around(set()) if around else None)
    predicted = np.full_like(logs, np.nan)
    for group in sorted(set(held_together)):
        held = np.array([item == group for item in held_together])
        masked = np.where(held, np.nan, logs)
        names = {name for name, out in zip(bench.networks, held, strict=True) if out}
        centre, devices = fit_family(
            family, bench, masked, full, stacks=stacks, around=around(names) if around else None
        )
        near = corrections(bench, centre, peer_table(bench, masked, (centre, devices))) if family.odd_rows else 0
        if shared:
            base = np.log(bench.predict(centre))
            offset = mean_known(masked - base, 1)
            predicted[:, held] = (base + offset[:, None])[:, held]
        else:
            for index, device in enumerate(devices):
                predicted[index, held] = (np.log(bench.predict(device)) + near)[held]
    return Errors(np.where(np.isnan(logs), np.nan, predicted - logs), predicted)


def frozen_families(families: Iterable[str], share: float) -> set[str]:
    """A test set: the first ``share`` of the architecture families by the SHA-256 of their names."""
    ordered = sorted(set(families), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ordered[: int(len(ordered) * share)])
