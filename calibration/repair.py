"""Accuracy repairs that a user switches on or off by backend options, and equalization that has to prove itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgedeploy.backend_options import Form, Option
from edgedeploy.calibration.equalize import equalize
from edgedeploy.calibration.quantizer.quantize import quantize
from edgedeploy.calibration.session import HELD_SAMPLES, Calibration
from edgedeploy.calibration.simulate import Simulator, sqnr_db

if TYPE_CHECKING:
    from edgedeploy.calibration.scheme import Scheme
    from edgedeploy.graph.graph import Graph
    from edgedeploy.progress import Progress

#: Backend options, with what they mean; every backend that quantizes activations takes them.
OPTIONS: tuple[Option, ...] = (
    Option(
        "bias_correction",
        "false leaves biases as they are; otherwise they take up the mean error of rounded weights",
        Form.SWITCH,
    ),
    Option(
        "equalize",
        "true scales channels between layers, where samples that calibration did not see say that it helps",
        Form.SWITCH,
    ),
)


@dataclass(frozen=True)
class Repairs:
    """Which repairs a user wants.

    Attributes:
        bias_correction: see `quantizer/bias_correction.py`.
        equalize: see `equalize.py`.
    """

    bias_correction: bool = True
    equalize: bool = False

    @classmethod
    def read(cls, options: Mapping[str, str]) -> Repairs:
        """Take the repairs from backend options that were checked by `edgedeploy.backend_options.read`."""
        return cls(
            bias_correction=options.get("bias_correction", "true") == "true",
            equalize=options.get("equalize", "false") == "true",
        )


@dataclass(frozen=True)
class Repaired:
    """What a backend quantizes.

    Attributes:
        graph: the float graph, equalized where that was asked for and helps.
        calibration: of that graph.
        details: for the manifest: what equalization did or why it was left out; empty where nobody asked for it.
    """

    graph: Graph
    calibration: Calibration
    details: Mapping[str, Any] = field(default_factory=dict)


def repaired(
    repairs: Repairs,
    graph: Graph,
    calibration: Calibration,
    scheme: Scheme,
    progress: Progress,
    higher: frozenset[str] = frozenset(),
) -> Repaired:
    """Equalize a graph where that was asked for and brings the quantized model nearer to the float one.

    Around a ReLU6 equalization is exact only as far as calibration saw (`equalize.py`). So it is fitted to all but one
    fold of the calibration samples first, and simulated on that fold: against the outputs of the graph as it was given,
    the equalized and quantized one must be better than the quantized one. Otherwise the graph stays as it is, and a
    note says why.

    Args:
        repairs: what the user wants.
        graph: the float graph.
        calibration: of that graph.
        scheme: the backend's rules.
        progress: told of the outcome.
        higher: tensors that the backend stores in ``scheme.higher``.
    """
    if not repairs.equalize:
        return Repaired(graph, calibration)

    def left_out(why: str, **figures: float) -> Repaired:
        progress.note(f"Equalization was left out: {why}.")
        return Repaired(graph, calibration, {"equalization": {"applied": False, "why": why, **figures}})

    if calibration.parts is None:
        return left_out("there are no calibration samples to hold back, and it has to prove itself on some")
    rest, held = calibration.parts
    fitted = Calibration(graph, rest, calibration.options, progress=progress)
    trial = equalize(graph, fitted.table)
    if not trial.pairs:
        return left_out("no two layers have nothing but an activation between them")
    samples = list(held.take(HELD_SAMPLES))
    reference = Simulator(graph, optimized=True).run(samples)

    def measured(fit: Calibration) -> float:
        table, correct = fit.table_for(scheme, higher), repairs.bias_correction
        model = quantize(fit.graph, table, scheme, higher=higher, bias_correction=correct)
        return round(sqnr_db(reference, Simulator(model, optimized=False).run(samples)), 2)

    before = measured(fitted)
    after = measured(Calibration(trial.graph, rest, calibration.options, progress=progress))
    figures = {"sqnr_db_before": before, "sqnr_db_after": after, "held_back_samples": len(samples)}
    if after <= before:
        return left_out(f"on {len(samples)} held-back samples it gives {after} dB instead of {before} dB", **figures)
    even = equalize(graph, calibration.table)
    progress.note(
        f"Equalized {len(even.pairs)} pairs of layers: {after} dB instead of {before} dB on held-back samples."
    )
    details = {"applied": True, "pairs": len(even.pairs), **figures}
    again = Calibration(even.graph, calibration.data, calibration.options, progress=progress)
    return Repaired(even.graph, again, {"equalization": details})
