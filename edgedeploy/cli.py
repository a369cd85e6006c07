"""The ``deploy`` command: finds the subcommand, runs it, and turns every ending into an exit code."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click

from edgedeploy.errors import EdgeDeployError, ExitCode

#: Subcommand → its module below `edgedeploy.commands` and what it does; anything else deploys a model.
COMMANDS: dict[str, tuple[str, str]] = {
    "targets": ("targets", "list the targets, or explain one"),
    "verify": ("verify", "re-check a bundle's hashes and golden vectors; with --device, measure there and append"),
    "estimate": ("estimate", "latency, energy and memory from the cost model alone"),
    "calibrate": ("calibrate", "calibrate only, and save the table"),
    "table": ("table", "show a calibration table, or compare two"),
    "layers": ("layers", "rank the layers by what quantizing each alone does to the outputs"),
    "inspect": ("inspect", "say what a model file, a .dlc, a .tflite or a bundle holds"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _terminate)
    module = "deploy"
    if arguments and arguments[0] in COMMANDS:
        module = COMMANDS[arguments.pop(0)][0]
    sys.exit(int(_run(module, arguments)))


def _run(module: str, arguments: list[str]) -> ExitCode:
    try:
        command: click.Command = importlib.import_module(f"edgedeploy.commands.{module}").command
        name = "deploy" if module == "deploy" else f"deploy {module}"
        code = command.main(arguments, prog_name=name, standalone_mode=False)
        return ExitCode(code or 0)
    except click.exceptions.Exit as ended:
        return ExitCode(ended.exit_code)
    except click.ClickException as error:
        error.show()
        return ExitCode.BAD_INPUT
    except EdgeDeployError as error:
        _report(error, as_json="--json" in arguments)
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("interrupted: nothing was changed", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception:
        import traceback

        traceback.print_exc()
        click.echo("This is a bug in edgedeploy: please report it with the lines above.", err=True)
        return ExitCode.BUG


def _report(error: EdgeDeployError, *, as_json: bool) -> None:
    click.echo(f"error: {error}", err=True)
    if as_json:
        fields = {"what": error.what, "found": error.found, "remedy": error.remedy}
        click.echo(json.dumps({"exit_code": int(error.exit_code), "error": fields}, indent=2))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
