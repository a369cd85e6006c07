"""What it means that a software stack is known: the held-out rows of Cortex-M.

A stack is one vendor's kernels at one release. Leaving a network out of every board, as elsewhere, asks for a layer
class that no board has (of four networks one is all dense layers); a stack asks for less:

- known stack: one row is held out. The board's three other networks are known, and all four on the stack's other
  boards; stacks seen on one board only are left out.
- unknown stack: no other row of the vendor holds the network. The board's three other networks are its anchors.
- nothing but core and clock: no row of the vendor at all; the board takes the cycles of its core under other vendors.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from cost_model_fit import Bench, Errors, Family, Table, fit_family


def known_stack(family: Family, bench: Bench, found: Table, stacks: list[str]) -> Errors:
    """One row of a stack that other boards have too."""
    boards = Counter(stacks)
    predicted = np.full_like(found.logs, np.nan)
    for index, stack in enumerate(stacks):
        if boards[stack] > 1:
            for network in range(len(found.networks)):
                predicted[index, network] = _predict(family, bench, found.logs, stacks, [index], network)[0]
    return Errors(predicted - found.logs, predicted)


def unknown_stack(family: Family, bench: Bench, found: Table, stacks: list[str]) -> Errors:
    """A network that no board of the vendor has; the board's other networks are known."""
    vendors = np.array([stack.split("|")[0] for stack in stacks])
    predicted = np.full_like(found.logs, np.nan)
    for vendor in sorted(set(vendors)):
        own = list(np.flatnonzero(vendors == vendor))
        for network in range(len(found.networks)):
            predicted[own, network] = _predict(family, bench, found.logs, stacks, own, network)
    return Errors(predicted - found.logs, predicted)


def _predict(family, bench, logs, stacks, held: list[int], network: int) -> np.ndarray:
    masked = logs.copy()
    masked[held, network] = np.nan
    _, devices = fit_family(family, bench, masked, stacks=stacks)
    return np.array([np.log(bench.predict(devices[index]))[network] for index in held])


def by_core_and_clock(found: Table) -> Errors:
    """No anchor: the mean cycles of the network on the same core under other vendors, at the board's clock."""
    parts = [device.split("|") for device in found.devices]
    cycles = found.logs + np.log([float(part[4]) for part in parts])[:, None]
    predicted = np.full_like(found.logs, np.nan)
    for index, (vendor, _, _, core, clock) in enumerate(parts):
        others = [i for i, part in enumerate(parts) if part[0] != vendor and part[3] == core]
        if others:
            predicted[index] = cycles[others].mean(0) - np.log(float(clock))
    return Errors(predicted - found.logs, predicted)


def two_way(found: Table, stacks: list[str]) -> Errors:
    """A known stack without any model: the other boards' time for the network, at the board's mean speed."""
    names = np.array(stacks)
    predicted = np.full_like(found.logs, np.nan)
    for index, stack in enumerate(stacks):
        others = [i for i in np.flatnonzero(names == stack) if i != index]
        for network in range(len(found.networks)) if others else ():
            rest = [i for i in range(len(found.networks)) if i != network]
            slower = (found.logs[index, rest] - found.logs[others][:, rest]).mean(1)
            predicted[index, network] = (found.logs[others, network] + slower).mean()
    return Errors(predicted - found.logs, predicted)
