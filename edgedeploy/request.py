"""What a user asked for, whether on the command line or in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

DataSource = str | Path | Callable[[], Iterable[Mapping[str, "NDArray[Any]"]]] | None
"""A path, ``pkg.mod:callable``, a callable that yields samples, or ``None`` for what lies beside the model."""


@dataclass(frozen=True)
class DeployRequest:
    """One ``deploy`` command.

    Attributes:
        model: the model file.
        targets: profile names or files; empty takes those of deploy.toml.
        output: folder that gets one subfolder a target.
        calibration, evaluation: data; see `DataSource`.
        config: a deploy.toml named by the user (may name code), else the one beside the model is looked for.
        factory: ``pkg.mod:callable`` that builds the module for a state_dict.
        inputs: ``name:1x3x224x224:float32`` for sources that carry no shapes.
        candidate: make only this candidate.
        device: "local", "adb:SERIAL", "ssh:USER@HOST" or "serial:PORT"; "" for this host.
        budgets, require, allow_unverified: overrides of the profile.
        options: backend options, KEY → VALUE.
        method: calibration method ("auto", "minmax", "percentile", "entropy", "mse").
        allow_globals, trust_code, unsafe_load: what the user vouches for.
        lock: a deploy.lock that must apply.
        cache: folder for calibration tables that may be reused; ``None`` for no cache.
        step_seconds: CPU seconds that one step on the model (loading, capturing, one sample) may take; ``None`` for a
            limit that grows with the file.
    """

    model: Path
    targets: tuple[str, ...] = ()
    output: Path = Path("out")
    calibration: DataSource = None
    evaluation: DataSource = None
    config: Path | None = None
    factory: str = ""
    inputs: tuple[str, ...] = ()
    candidate: str | None = None
    device: str = ""
    budgets: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    allow_unverified: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    method: str = "auto"
    allow_globals: tuple[str, ...] = ()
    trust_code: bool = False
    unsafe_load: bool = False
    lock: Path | None = None
    cache: Path | None = None
    step_seconds: float | None = None
