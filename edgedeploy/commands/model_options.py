"""The options that every command takes that loads a model: what builds it, what it takes, what the user vouches for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_LOADING = (
    click.option(
        "--config", type=click.Path(path_type=Path), metavar="FILE", help="deploy.toml; else the one beside the model."
    ),
    click.option(
        "--model",
        "factory",
        default="",
        metavar="PKG.MOD:FN",
        help="Builds the module for a file that holds only weights.",
    ),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME:SHAPE:DTYPE",
        help="image:1x3x224x224:float32, where the file carries no shapes.",
    ),
    click.option(
        "--allow-global",
        "allow_globals",
        multiple=True,
        metavar="PKG.CLASS",
        help="A class that a pickle may construct.",
    ),
    click.option("--trust-code", is_flag=True, help="The TorchScript file may run its code."),
    click.option("--unsafe-load", is_flag=True, help="The pickle may do anything; only for files you made."),
)

_STEP_SECONDS = click.option(
    "--step-seconds",
    type=click.FloatRange(min=1),
    metavar="N",
    help="CPU time that one step on the model may take; else 50 and 1 more a MB.",
)

_CALIBRATION = click.option(
    "--calibration", metavar="DATA", help=".npz, folder of .npy or images, or pkg.mod:callable."
)


def loading_options(command: F) -> F:
    """Add the options of `DeployRequest` that say how the model is loaded."""
    for option in reversed((*_LOADING, _STEP_SECONDS)):
        command = option(command)
    return command


def step_seconds_option(command: F) -> F:
    """Add ``--step-seconds``, for a command that reads a stranger's file without loading it as a model."""
    return _STEP_SECONDS(command)


def calibration_option(command: F) -> F:
    """Add ``--calibration``."""
    return _CALIBRATION(command)
