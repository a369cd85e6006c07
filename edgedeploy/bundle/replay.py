"""The golden vectors again: does the artefact give what it gave when the bundle was built?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedeploy.compare import compare
from edgedeploy.errors import ToolFailedError
from edgedeploy.evidence import Evidence
from edgedeploy.judge import Outcome, Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A replay on another machine may round differently: this share of the outputs' own spread is allowed.
REPLAY_TOLERANCE = 0.02

#: Boxes in pixels hide scores below 1 from it: each part of an output with a scale of its own has to keep its signal.
REPLAY_GROUP_DB = 10.0


def judge_replay(
    recorded: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]], evidence: Evidence
) -> Verdict:
    """Judge by the largest difference, relative to how much that output varies.

    Args:
        recorded: what the bundle holds, by output name, (vectors, *output shape); at least one output.
        outputs: what was given now, for as many vectors or more.

    Returns:
        ``pass`` only where every value was compared or is the same infinity in both; not-a-number never passes.

    Raises:
        ToolFailedError: an output is missing or has another shape.
    """
    worst, why = 0.0, ""
    for name, want in recorded.items():
        if name not in outputs:
            raise ToolFailedError(f"The artefact did not give output {name!r}.", found=f"it gave {', '.join(outputs)}")
        got = np.asarray(outputs[name])[: len(want)]
        if got.shape != want.shape:
            raise ToolFailedError(f"Output {name!r} has shape {got.shape}, the bundle recorded {want.shape}.")
        if not want.size:
            why = why or f"output {name!r} has no values, so that nothing was compared"
            continue
        difference, wrong = _difference(want.astype(np.float64), got.astype(np.float64))
        worst = max(worst, difference)
        wrong = wrong or _lost_group(name, want, got)
        why = why or (f"output {name!r}: {wrong}" if wrong else "")
    if not why and not worst <= REPLAY_TOLERANCE:
        why = "the golden vectors gave other outputs than when the bundle was built"
    outcome = Outcome.FAIL if why or not recorded else Outcome.PASS
    limit = f"≤ {REPLAY_TOLERANCE:g} of the spread"
    return Verdict("golden_vectors", "quality", limit, worst, None, None, evidence, outcome, True, why)


def _difference(want: NDArray[np.float64], got: NDArray[np.float64]) -> tuple[float, str]:
    """The largest difference of finite values, in spreads, and what no difference can say."""
    if np.isnan(want).any():
        return 0.0, "what the bundle recorded is not a number"
    if np.isnan(got).any():
        return 0.0, "the artefact gives not-a-number"
    finite = np.isfinite(want)
    if not np.array_equal(want[~finite], got[~finite]) or not np.isfinite(got[finite]).all():
        return 0.0, "other infinities than when the bundle was built"
    if not finite.any():
        return 0.0, "every value recorded is infinite, so that nothing was compared"
    spread = float(np.std(want[finite])) or 1.0
    return float(np.max(np.abs(got[finite] - want[finite]))) / spread, ""


def _lost_group(name: str, want: NDArray[Any], got: NDArray[Any]) -> str:
    """Which part of an output does not follow what was recorded."""
    (compared,) = compare({name: want}, {name: got})
    lost = [group for group in compared.groups if group.varies and not group.sqnr_db >= REPLAY_GROUP_DB]
    return f"{lost[0].where or 'all of it'} gives something else than when the bundle was built" if lost else ""
