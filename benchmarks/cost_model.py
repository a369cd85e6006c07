"""Holds the cost model against published measurements it was not fitted on.

    python benchmarks/cost_model.py MEASUREMENTS_FOLDER QAI_HUB_MODELS.whl [--cache ops.json] [--frozen]

Errors are median / 90th-percentile absolute percentage errors of held-out rows. Beside the model stand two baselines
fitted on the same rows: multiply-accumulates over one rate, and a plain roofline with both rates. ``--frozen`` adds the
test set: whole architecture families chosen by a hash of their names before anything was tuned; report it, never tune
on it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cost_model_cache import load_facts
from cost_model_families import CPU_FLOAT, CPU_INT8, TINY, AroundFloat, architecture, frozen_set, gather, stacks_of
from cost_model_fit import Bench, Errors, corrections, cross_validate, fit_family, mean_known, peer_table, table
from cost_model_protocols import by_core_and_clock, known_stack, two_way, unknown_stack
from scipy.optimize import least_squares, nnls
from scipy.stats import spearmanr

from edgedeploy.precision import INT8

#: What was asked of each family: (leave-one-model-out, leave-one-family-out), median / 90th percentile, %.
GOALS = {
    "Snapdragon NPU, float": ((12, 38), (17, 48)),
    "Snapdragon NPU, w8a8": ((14, 48), (17, 48)),
    "Jetson GPU, TensorRT int8": ((20, None), None),
    "iPhone Neural Engine (A14), float16": ((10, 20), None),
    "CPU, ncnn float": ((14, 42), None),
    "CPU, ncnn int8": ((14, 42), None),
}


def baselines(family, facts, found) -> dict[str, Errors]:
    """Leave-one-model-out errors of MACs over a rate, and of a two-rate roofline, fitted per device."""
    size = family.precision
    macs, seconds = [], []
    for name in found.networks:
        each = np.array([[max(op.macs, 1), _bytes(op, size)] for op in facts[name]], float)
        macs.append(each[:, 0].sum())
        seconds.append(each)
    by_macs, roofline = np.full_like(found.logs, np.nan), np.full_like(found.logs, np.nan)
    for device, row in enumerate(found.logs):
        known = np.flatnonzero(~np.isnan(row))
        for held in known:
            rest = known[known != held]
            if len(rest) < 2:
                continue
            by_macs[device, held] = np.log(macs[held]) + np.median(row[rest] - np.log(np.array(macs)[rest]))
            rates = _fit_roofline([seconds[index] for index in rest], row[rest])
            roofline[device, held] = np.log(_roofline(seconds[held], rates))
    return {
        "MACs / rate": Errors(by_macs - found.logs, by_macs),
        "plain roofline": Errors(roofline - found.logs, roofline),
    }


def _bytes(op, size) -> float:
    return (op.activation_bytes / 4) * size.activation_bytes + op.parameters * size.weight_bytes


def _roofline(each: np.ndarray, rates: np.ndarray) -> float:
    return float(np.maximum(each[:, 0] / np.exp(rates[0]), each[:, 1] / np.exp(rates[1])).sum())


def _fit_roofline(networks, logs) -> np.ndarray:
    owner = np.concatenate([np.full(len(item), index) for index, item in enumerate(networks)])
    every = np.concatenate(networks)

    def residuals(rates):
        each = np.maximum(every[:, 0] / np.exp(rates[0]), every[:, 1] / np.exp(rates[1]))
        return np.log(np.bincount(owner, each)) - logs

    start = np.log([np.median([item[:, i].sum() for item in networks] / np.exp(logs)) * 1.5 for i in (0, 1)])
    return least_squares(residuals, start, loss="soft_l1", f_scale=0.25, max_nfev=60).x


def other_devices(logs: np.ndarray) -> Errors:
    """A network measured on other devices, on a new one: a line through the log means, the network held out."""
    predicted = np.full_like(logs, np.nan)
    for device, row in enumerate(logs):
        others = np.delete(logs, device, 0)
        others = others - mean_known(others, 1, keepdims=True)
        mean = mean_known(others, 0)
        known = np.flatnonzero(~np.isnan(row) & ~np.isnan(mean))
        for held in known:
            rest = known[known != held]
            if len(rest) >= 3:
                slope = np.polyfit(mean[rest], row[rest], 1) if len(rest) > 5 else (1, np.mean(row[rest] - mean[rest]))
                predicted[device, held] = np.polyval(slope, mean[held])
    return Errors(predicted - logs, predicted)


def coverage(errors: np.ndarray, together: Sequence[object] = ()) -> float:
    """Share of rows inside a 90 % band taken from the other networks (or families of them) alone."""
    inside = []
    names = np.array(together or range(errors.shape[1]))
    for group in sorted(set(names)):
        held = names == group
        rest = errors[:, ~held]
        band = np.quantile(np.abs(rest[~np.isnan(rest)]), 0.9)
        column = errors[:, held]
        inside += list(np.abs(column[~np.isnan(column)]) <= band)
    return float(np.mean(inside))


def ranks(errors: Errors, logs: np.ndarray) -> tuple[float, float]:
    """Spearman correlation over networks: median and worst device."""
    found = []
    for predicted, row in zip(errors.predicted, logs, strict=True):
        known = ~np.isnan(row) & ~np.isnan(predicted)
        if known.sum() > 3:
            found.append(spearmanr(predicted[known], row[known]).statistic)
    return (float(np.median(found)), float(min(found))) if found else (float("nan"), float("nan"))


#: Of Cortex-M: known software stack, unknown software stack.
STACK_GOALS = (8, 22), (15, 35)


def report(family, rows, facts, frozen: set[str], show_frozen: bool, around: AroundFloat | None = None) -> None:
    hub = family.form == "npu"
    found = table(rows, (lambda name: architecture(name) in frozen) if hub else (lambda name: False))
    bench = Bench(family, facts, found.networks)
    print(f"\n{family.name}: {len(found.networks)} networks, {len(found.devices)} devices")
    goals = GOALS.get(family.name, (None, None))
    stacks = stacks_of(family, found.devices)
    given = {"stacks": stacks, "around": around}
    lomo = cross_validate(family, bench, found.logs, found.networks, **given)
    _line("leave one model out", lomo, goals[0])
    groups = [architecture(name) for name in found.networks]
    stated, together = lomo, found.networks
    if len(set(groups)) > 4:
        stated, together = cross_validate(family, bench, found.logs, groups, **given), groups
        _line("leave one family out, per device", stated, goals[1])
        shared = cross_validate(family, bench, found.logs, groups, shared=True, **given)
        _line("leave one family out, shared x scale", shared, goals[1])
    for name, errors in baselines(family, facts, found).items():
        _line(f"baseline: {name}", errors, None)
    _line("network known on other devices", other_devices(found.logs), (10, 25) if hub else None)
    median, worst = ranks(lomo, found.logs)
    print(f"  rank correlation: median {median:.3f}, worst device {worst:.3f}")
    inside = coverage(stated.errors, together)
    print(f"  90 % band ×/÷{stated.band90():.2f}, covers {inside:.0%} of held-out rows")
    if family is TINY:
        _stacks(family, bench, found, stacks)
    if any(row.energy_mj for row in rows):
        energy(rows, found, lomo, facts)
    if hub and show_frozen:
        _frozen(family, rows, facts, frozen, found, bench, stated, goals[1])
        _every(family, rows, facts, goals)


def _every(family, rows, facts, goals) -> None:
    """What ships is fitted on all networks, those of the frozen set included."""
    found = table(rows, lambda name: False)
    bench = Bench(family, facts, found.networks)
    groups = [architecture(name) for name in found.networks]
    for what, together, goal in (("model", found.networks, goals[0]), ("family", groups, goals[1])):
        errors = cross_validate(family, bench, found.logs, together)
        _line(f"leave one {what} out, the frozen ones included", errors, goal)


def _stacks(family, bench, found, stacks) -> None:
    known, unknown = (rule(family, bench, found, stacks) for rule in (known_stack, unknown_stack))
    for name, errors, goal in (("known", known, STACK_GOALS[0]), ("unknown", unknown, STACK_GOALS[1])):
        _line(f"{name} software stack", errors, goal)
        print(f"    90 % band ×/÷{errors.band90():.2f}, covers {coverage(errors.errors):.0%} of held-out rows")
    _line("known software stack, no model: two-way", two_way(found, stacks), None)
    _line("unknown stack, core and clock alone", by_core_and_clock(found), None)


def energy(rows, found, lomo: Errors, facts) -> None:
    """Energy of a held-out network: the board's power on the others times predicted, and measured, latency.

    Beside it stands energy from multiply-accumulates and bytes, fitted on the board's other networks.
    """
    power = {(row.device, row.network): np.log(row.energy_mj / row.latency_ms) for row in rows if row.energy_mj}
    predicted, measured = [], []
    for (device, network), truth in power.items():
        rest = [value for (other, name), value in power.items() if other == device and name != network]
        if rest:
            miss = np.mean(rest) - truth
            measured.append(miss)
            predicted.append(miss + lomo.errors[found.devices.index(device), found.networks.index(network)])
    _line("energy, MACs and bytes", _energy_of_work(rows, facts), (15, None))
    for name, errors in (("predicted", predicted), ("measured", measured)):
        _line(f"energy, from {name} latency", Errors(np.array([errors]), np.array([errors])), (15, None))


def _energy_of_work(rows, facts) -> Errors:
    """Energy as pJ a multiply-accumulate and pJ a byte, from the board's other networks."""
    boards: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.energy_mj:
            boards.setdefault(row.device, {})[row.network] = row.energy_mj
    misses = []
    for found in boards.values():
        work = {name: np.array([sum(op.macs for op in facts[name]), sum(_bytes(op, INT8) for op in facts[name])], float)
                for name in found}  # fmt: skip
        for held, truth in found.items():
            rest = [name for name in found if name != held]
            if len(rest) > 1:
                scale = np.array([found[name] for name in rest])
                rates, _ = nnls(np.array([work[name] for name in rest]) / scale[:, None], np.ones(len(rest)))
                misses.append(np.log(work[held] @ rates / truth))
    return Errors(np.array([misses]), np.array([misses]))


def _frozen(family, rows, facts, frozen, found, bench, stated, goal) -> None:
    centre, devices = fit_family(family, bench, found.logs)
    test = table(rows, lambda name: architecture(name) not in frozen)
    test_bench = Bench(family, facts, test.networks)
    near = corrections(test_bench, centre, peer_table(bench, found.logs, (centre, devices)))
    predicted = np.full_like(test.logs, np.nan)
    for index, device in enumerate(test.devices):
        if device in found.devices:
            predicted[index] = np.log(test_bench.predict(devices[found.devices.index(device)])) + near
    held = Errors(predicted - test.logs, predicted)
    inside = np.mean(np.abs(held.flat) <= np.log(stated.band90()))
    _line(f"frozen: {', '.join(test.networks)}", held, goal)
    print(
        f"    the band above covers {inside:.0%} of the frozen rows; rank correlation {ranks(held, test.logs)[0]:.3f}"
    )
    for name, error in zip(test.networks, mean_known(held.errors, 0), strict=True):
        print(f"    {name:<28} mean {np.expm1(error):+.0%}")


def _line(name: str, errors: Errors, goal) -> None:
    if not len(errors.flat):
        print(f"  {name:<40} not enough rows")
        return
    median, ninetieth = errors.percent()
    text = f"  {name:<40} {median:5.1f} / {ninetieth:5.1f} %  ({len(errors.flat)} rows)"
    if goal:
        asked = " / ".join(str(limit) for limit in goal if limit is not None)
        met = median <= goal[0] and (goal[1] is None or ninetieth <= goal[1])
        text += f"   asked {asked}: {'reached' if met else 'NOT reached'}"
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("cost_model_ops.json"))
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--only", default="", help="families whose name contains this")
    arguments = parser.parse_args()
    facts = load_facts(arguments.cache)
    frozen = frozen_set()
    families = gather(arguments.folder, arguments.wheel, facts)
    float_rows = next(rows for family, rows in families if family is CPU_FLOAT)
    for family, rows in families:
        if arguments.only not in family.name:
            continue
        if rows:
            around = AroundFloat(float_rows, facts) if family is CPU_INT8 else None
            report(family, rows, facts, frozen, arguments.frozen, around)
        else:
            print(f"\n{family.name}: skipped, its table is neither in {arguments.folder} nor in {arguments.wheel}")


if __name__ == "__main__":
    main()
