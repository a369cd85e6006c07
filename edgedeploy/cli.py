"""The ``deploy`` command: finds the subcommand, runs it, and turns every ending into an exit code."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

import click

from edgedeploy.errors import EdgeDeployError, ExitCode, InputError
from edgedeploy.exhausted import unexpected
from edgedeploy.terminal import error_text, say, say_json, steady_streams

#: Subcommand → its module below `edgedeploy.commands` and what it does; anything else deploys a model.
COMMANDS: dict[str, tuple[str, str]] = {
    "targets": ("targets", "list the targets, or explain one"),
    "verify": ("verify", "re-check a bundle's hashes and golden vectors; with --device, measure there and append"),
    "estimate": ("estimate", "latency, energy and memory from the cost model alone"),
    "calibrate": ("calibrate", "calibrate only, and save the table"),
    "table": ("table", "show a calibration table, or compare two"),
    "layers": ("layers", "rank the layers by what quantizing each alone does to the outputs"),
    "scan": ("scan", "say what loading a file would do, without loading it"),
    "inspect": ("inspect", "say what a model file, a .dlc, a .tflite or a bundle holds"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    module = "deploy"
    if arguments and arguments[0] in COMMANDS:
        module = COMMANDS[arguments.pop(0)][0]
    with _signals(), steady_streams():
        code = _run(module, arguments)
    sys.exit(int(code))


def _run(module: str, arguments: list[str]) -> ExitCode:
    name = "deploy" if module == "deploy" else f"deploy {module}"
    try:
        command: click.Command = importlib.import_module(f"edgedeploy.commands.{module}").command
        if nul := next((item for item in arguments if "\0" in item), None):
            raise InputError("An argument holds a NUL character.", found=nul)
        # Not command.main(): it takes any EOFError for Ctrl-C, and a reader that went away for a failure.
        with command.make_context(name, list(arguments)) as context:
            return ExitCode(command.invoke(context) or 0)
    except click.exceptions.Exit as ended:
        return ExitCode(ended.exit_code)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx:
            say(error.ctx.get_usage(), lines=True, err=True)
        mistake = InputError(error.format_message(), remedy=f"`{name} --help` lists the options.")
        say(f"error: {error_text(mistake)}", lines=True, err=True)
        return _told(mistake, arguments)
    except EdgeDeployError as error:
        say(f"error: {error_text(error)}", lines=True, err=True)
        return _told(error, arguments)
    except KeyboardInterrupt as stopped:
        say(str(stopped) or "interrupted", err=True)
        return ExitCode.INTERRUPTED
    except Exception as error:
        crash = unexpected(error)
        say(f"error: {error_text(crash)}", lines=True, err=True)
        return _told(crash, arguments)


def _told(error: EdgeDeployError, arguments: Sequence[str]) -> ExitCode:
    """Tell an error as JSON too, where JSON is asked for."""
    if "--json" in arguments:
        fields = {"what": error.what, "found": error.found, "remedy": error.remedy}
        say_json({"exit_code": int(error.exit_code), "error": fields})
    return error.exit_code


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """A terminated command and one whose terminal went away clean up as an interrupted one does."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    for number in numbers:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
