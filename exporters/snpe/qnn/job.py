"""What the worker is asked and what it answers, as JSON between two processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Code:
    """How a graph input or output is stored: real = (stored - zero_point) * scale, or as it is."""

    name: str
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Feedback:
    """The output that an input takes at the next sample, and how both are stored."""

    output: str
    given: Code
    taken: Code


@dataclass(frozen=True)
class Job:
    """One ONNX Runtime session on the QNN provider.

    Attributes:
        model: the ONNX file, absolute.
        provider_options, session_config: as ONNX Runtime takes them.
        result: where the worker writes its answer.
        samples: a folder of ``<index>.npz`` samples to run, or empty to only create the session.
        outputs: the folder that receives ``<index>.npz``.
        count: number of samples.
        load_by_path: an EPContext model finds its binary beside itself, so it is loaded by its path; any other model
            is loaded from bytes, because ONNX Runtime derives graph names from a path and builds would then differ.
        verbose: log everything, to find the reason of a refused preparation.
        states: what is fed back from sample to sample, by input.
        cpu_fallback: leave what QNN refuses to ONNX Runtime's CPU provider; otherwise such a session is refused.
    """

    model: str
    provider_options: Mapping[str, str]
    result: str
    session_config: Mapping[str, str] = field(default_factory=dict)
    samples: str = ""
    outputs: str = ""
    count: int = 0
    load_by_path: bool = False
    verbose: bool = False
    cpu_fallback: bool = False
    states: Mapping[str, Feedback] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the job."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read a job."""
        raw = json.loads(path.read_text())
        raw["states"] = {
            name: Feedback(item["output"], Code(**item["given"]), Code(**item["taken"]))
            for name, item in raw["states"].items()
        }
        return cls(**raw)


@dataclass(frozen=True)
class PlacedNode:
    """One node of the graph as ONNX Runtime optimized it, and the provider that got it."""

    name: str
    op_type: str
    provider: str


@dataclass(frozen=True)
class Answer:
    """What the worker saw.

    Attributes:
        error: ONNX Runtime's message where the session was refused, else empty.
        nodes: every node with its provider; empty where the session was refused.
        create_s: seconds to create the session.
        run_s: seconds of each sample, of the simulator on this host: no device's latency.
        peak_rss_mb: peak resident memory of the worker.
    """

    error: str = ""
    nodes: tuple[PlacedNode, ...] = ()
    create_s: float = 0.0
    run_s: tuple[float, ...] = ()
    peak_rss_mb: float = 0.0

    @property
    def providers(self) -> dict[str, int]:
        """Number of nodes per provider."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.provider] = counts.get(node.provider, 0) + 1
        return counts

    def save(self, path: Path) -> None:
        """Write the answer."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Answer:
        """Read an answer."""
        raw = json.loads(path.read_text())
        raw["nodes"] = tuple(PlacedNode(**node) for node in raw["nodes"])
        raw["run_s"] = tuple(raw["run_s"])
        return cls(**raw)
