"""A model with state judged where errors add up: the artefact fed its own state, the reference its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgedeploy.compare import OutputComparison, compare
from edgedeploy.errors import MissingToolError
from edgedeploy.evidence import Evidence
from edgedeploy.judge import Outcome, Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgedeploy.interfaces import Artefact, RunJob, Runner

#: Why there is no loop where there is no run.
NOT_RUN = "the artefact was not run"

#: What the report adds to an output's name.
IN_THE_LOOP = " (in the loop)"


@dataclass(frozen=True)
class Looped:
    """One run in the loop.

    Attributes:
        outputs: by captured name, (steps, *output shape); empty where nobody could run it.
        evidence: how they were obtained.
        why: why they were not, else empty.
    """

    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    evidence: Evidence = Evidence.NONE
    why: str = ""

    def compared(
        self,
        reference: Mapping[str, NDArray[Any]],
        class_outputs: Mapping[str, int],
        labels: Mapping[str, NDArray[Any]],
    ) -> tuple[OutputComparison, ...]:
        """Compare every step of every output with the reference's own loop, (samples, *output shape)."""
        if not self.outputs:
            return ()
        outputs = {name: self.outputs[name][: len(value)] for name, value in reference.items() if name in self.outputs}
        found = compare(reference, outputs, class_outputs=class_outputs, labels=labels)
        return tuple(replace(item, output=item.output + IN_THE_LOOP) for item in found)

    def verdicts(self, allowed: Sequence[str]) -> tuple[Verdict, ...]:
        """One that is ``unverified`` where the loop was not run: an error in a state adds up step by step."""
        if self.outputs:
            return ()
        required = "state_loop" not in allowed
        return (
            Verdict(
                "state_loop", "quality", "run", None, None, None, Evidence.NONE, Outcome.UNVERIFIED, required, self.why
            ),
        )


def run_loop(runner: Runner, artefact: Artefact, job: RunJob, states: Mapping[str, str]) -> Looped:
    """Run the samples as one sequence: on the job's device, else on this host, where that can be looped.

    Args:
        job: as it was run sample by sample; its folder gets one of the loop's own.
        states: input by output.
    """
    why = ""
    for device in dict.fromkeys((job.device, "")):
        folder = job.work_dir / f"loop-{'device' if device else 'host'}"
        folder.mkdir(parents=True)
        try:
            result = runner.run(artefact, replace(job, work_dir=folder, device=device, measure=False, states=states))
        except MissingToolError as error:
            why = why or str(error)
            continue
        if result.outputs:
            return Looped(result.outputs, result.evidence)
        why = why or "; ".join(result.notes)
    return Looped(why=why)
