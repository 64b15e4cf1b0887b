"""`python pipelines/run.py stack ...` and `... schedule ...`: what is done beside runs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from metalayer import storage
from metalayer.errors import MetalayerError
from pipelines import console, environment, failures, mlflow_service, moved_state, schedule, stack_check, stacks

NAMES = ("stack", "schedule")


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except MetalayerError as error:
        console.say(str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the last place: every error becomes its message and an exit status
        if told := failures.lacking(error) or storage.explained(error):
            console.say(str(told))
            return told.exit_code
        state = environment.prepare(local=False)
        log_file = state / "logs" / f"{arguments[0]}-{time.strftime('%Y%m%d-%H%M%S')}.log"
        console.start(log_file, verbose=False)
        if "zenml" in sys.modules:
            console.take_over()
        console.failure(error, where=" ".join(arguments), log_file=log_file, code=1)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python pipelines/run.py")
    groups = parser.add_subparsers(required=True, metavar="stack|schedule")
    stack = groups.add_parser("stack", help="where pipelines run").add_subparsers(required=True, metavar="apply|check")
    for name, text, run in (
        ("apply", "register a stack with ZenML, or bring it up to date", _apply),
        ("check", "say what a run on a stack would miss, component by component", _check),
    ):
        command = stack.add_parser(name, help=text, description=text)
        command.add_argument("stack", choices=stacks.names())
        command.set_defaults(run=run)
    kept = groups.add_parser("schedule", help="runs at set times").add_subparsers(
        required=True, metavar="list|suspend|resume|delete"
    )
    for name, text, run in (
        ("list", "the schedules on the cluster", _list),
        ("suspend", "start no further run", lambda options: _suspend(options, suspended=True)),
        ("resume", "start runs again", lambda options: _suspend(options, suspended=False)),
        ("delete", "remove a schedule", _delete),
    ):
        command = kept.add_parser(name, help=text, description=text)
        command.add_argument("--stack", default="kubernetes", choices=stacks.names())
        if name != "list":
            command.add_argument("name", help="as `list` shows it")
        command.set_defaults(run=run)
    return parser


def _apply(options: argparse.Namespace) -> int:
    stack = _read(options.stack)
    mlflow_service.prepare()
    with mlflow_service.access(_tracking_uri(), local=stack.name == "local") as credentials:
        changes = stacks.apply(stack, {"experiment_tracker": credentials})
    for change in changes or ["nothing to change"]:
        console.say(change)
    return 0


def _check(options: argparse.Namespace) -> int:
    findings = stack_check.unset_variables(options.stack) or stack_check.check(_read(options.stack))
    for line in stack_check.lines(findings):
        console.say(line)
    return stack_check.exit_code(findings)


def _list(options: argparse.Namespace) -> int:
    found = schedule.listed(_read(options.stack))
    for line in found or ["no schedule"]:
        console.say(line)
    return 0


def _suspend(options: argparse.Namespace, *, suspended: bool) -> int:
    schedule.suspend(_read(options.stack), options.name, suspended=suspended)
    console.say(f"{options.name} {'suspended' if suspended else 'resumed'}")
    return 0


def _delete(options: argparse.Namespace) -> int:
    schedule.delete(_read(options.stack), options.name)
    console.say(f"{options.name} deleted")
    return 0


def _read(name: str) -> stacks.Stack:
    state = environment.prepare(local=name == "local")
    if name == "local":
        moved_state.follow(state, held=False)
    return stacks.read(name, {"state": str(state), "tracking_uri": _tracking_uri()})


def _tracking_uri() -> str:
    from metalayer.registry import tracking

    return tracking.default_tracking_uri()
