"""Everything a run prints, and its log file.

Progress goes to stderr: one line as a step starts, the library's own lines below it, one as it ends.
The result goes to stdout, and to the log file. What ZenML, MLflow and others log goes to the log file, with all
tracebacks; of ZenML's only warnings are shown.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from metalayer import output, storage
from metalayer.errors import MetalayerError
from metalayer.evaluation.verdict import MORE_IN_A_RUN
from metalayer.workflows import outcome

BEFORE = "before the first step"
"""Where a run fails that has none behind it."""

FAULTY_STATUS = 2
"""Exit status where many variants do not fit their reference; they are written all the same."""
WIDTH = 100
"""Columns of what a run ends with; paths and commands are not broken."""

logger = logging.getLogger(__name__)

_OURS = ("metalayer", "steps", "pipelines", "__main__")
_ZENML_CHATTER = (
    "zenml.config.global_config",
    "zenml.zen_stores",
    "zenml.integrations.mlflow",
    "zenml.orchestrators.local",
)
"""Their warnings tell of the creation of ZenML's database, of MLflow flavours that are not installed, and
of each step that a failed one leaves out."""
_KEPT_LOGS = 20
_RESULT = logging.getLogger("result")
_RESULT.propagate = False  # to the log file alone: ZenML's handler would print each line a second time
_STARTED = re.compile(r"^Step `(\w+)` has started\.$")
_FINISHED = re.compile(r"^Step `(\w+)` has finished in `(.+)`\.$")
_CACHED = re.compile(r"^Using cached version of step `(\w+)`\.$")
_FAILED = re.compile(r"^Failed to run step `(\w+)`: (.*)$", re.DOTALL)
_RETRY = re.compile(r"^Sleeping for \d+ seconds before retrying step `(\w+)`\.$")


class _LogFile(logging.FileHandler):
    """The log file of a run; where it can no longer be written, that is said once."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        told = storage.explained(error) if (error := sys.exception()) else None
        if told is None:
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        logger.warning("log file %s: %s", self.baseFilename, told)


class _Progress(logging.Handler):
    """Shows what a person wants to see of a run."""

    def __init__(self, stream: TextIO, *, verbose: bool) -> None:
        super().__init__()
        self.stream = stream
        self.verbose = verbose
        self.steps = 0
        self.begun = 0
        self.indent = ""
        self.error = ""

    def emit(self, record: logging.LogRecord) -> None:
        line = self._line(record)
        if line is not None:
            self.stream.write(line + "\n")
            self.stream.flush()

    def _line(self, record: logging.LogRecord) -> str | None:
        message = record.getMessage()
        source = record.name.partition(".")[0]
        if source in _OURS:
            return f"{self.indent}{message}"
        if source == "zenml":
            step_line = self._step_line(message)
            if step_line is not None:
                return step_line
            # Errors are reported by `failure` below, once and last.
            if record.levelno == logging.WARNING and not record.name.startswith(_ZENML_CHATTER):
                return f"{self.indent}zenml: {message}"
        if not self.verbose:
            return None
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        return f"{self.indent}{record.name}: {message}\n{trace}".rstrip()

    def _step_line(self, message: str) -> str | None:
        if found := _STARTED.match(message):
            self.indent = "      "
            return self._number(found[1])
        if found := _CACHED.match(message):
            return f"{self._number(found[1])}: cached"
        if found := _FINISHED.match(message):
            return f"{self.indent}done in {found[2]}"
        if found := _FAILED.match(message):
            self.error = found[2].partition("\n")[0]
        if found := _RETRY.match(message):
            self.begun -= 1
            return f"{self.indent}failed ({self.error}); trying again"
        return None

    def _number(self, step: str) -> str:
        self.begun += 1
        return f"[{self.begun}/{self.steps}] {step}"


def start(log_file: Path, *, verbose: bool) -> None:
    """Log to the screen and to `log_file`, of which the newest are kept."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    for old in sorted(log_file.parent.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-_KEPT_LOGS]:
        old.unlink(missing_ok=True)
    # A stream of its own: ZenML wraps sys.stderr and would store each line twice.
    screen = _Progress(output.lasting(os.dup(2)), verbose=verbose)
    to_file = _LogFile(log_file, delay=True, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in (screen, to_file):
        root.addHandler(handler)
    _RESULT.setLevel(logging.INFO)
    _RESULT.addHandler(to_file)


def take_over() -> None:
    """Take the screen back from ZenML, which has just been imported."""
    from zenml.logger import ZenMLConsoleHandler

    logging.raiseExceptions = False  # ZenML logs in a signal's handler, which may be while a line is being written
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, ZenMLConsoleHandler):
            root.removeHandler(handler)


def expect_steps(count: int) -> None:
    """Say how many steps there will be."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Progress):
            handler.steps = count


def shown(path: Path) -> str:
    """A path as a person at this prompt would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def say(text: str = "") -> None:
    """Print a line of the result, which goes to the log file too."""
    if text:
        _RESULT.info("%s", text)
    print(text, flush=True)


def result(
    *,
    evaluation: Mapping[str, Any],
    summary: str,
    table: str,
    decision: Mapping[str, Any],
    registration: Mapping[str, Any],
    promotion: Mapping[str, Any],
    bento: Mapping[str, Any],
    report: Path,
    errors: Path | None,
    kept: Sequence[Path],
    command: Callable[..., str],
    query: Sequence[str],
    cached: Sequence[str],
    log_file: Path,
) -> None:
    """Print what the run ends with, on one screen: decision, summary, places; the rest goes to the log file."""
    say()
    for line in outcome.decision_lines(evaluation, decision, MORE_IN_A_RUN, _wrapped):
        say(line)
    say()
    say(summary)
    for line in (*table.split("\n"), *(reason["text"] for reason in decision["reasons"])):
        _RESULT.info("%s", line)
    say()
    for line in outcome.model_lines(registration, promotion, bento, command):
        say(line)
    for number, path in enumerate(kept):
        say(f"{'kept' if not number else '':<7} {shown(path)}")
    say(f"report  {shown(report)}")
    if errors:
        say(f"errors  {shown(errors)}")
    say(f"log     {shown(log_file)}")
    say(f"runs    {command('ui', 'mlflow')}")
    say(f"        {command('ui', 'zenml')}")
    say(_wrapped(f"cached  {', '.join(cached) or 'no step'}", "        "))
    for number, line in enumerate(query):
        say(f"{'query' if not number else '':<7} {line}")


def _wrapped(line: str, indent: str) -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def compiled(package: Path) -> None:
    """Print what a run on Kubeflow without an address ends with."""
    say()
    say(f"compiled {shown(package)}, for one run")
    say(f"submit it: kfp --endpoint URL run create --experiment-name metalayer --package-file {shown(package)}")
    say("or set KF_PIPELINES_ENDPOINT and start the run again")
    say("exit status 0: compiled")


def search_result(found: Mapping[str, Any], best: Path, command: str, log_file: Path) -> None:
    """Print what a search ends with."""
    from metalayer.evaluation.tables import aligned

    names = list(dict.fromkeys(name for trial in found["trials"] for name in trial["settings"]))
    rows = [["trial", "state", found["metric"], "epoch", *names]]
    for trial in found["trials"]:
        value = "" if trial["value"] is None else f"{trial['value']:.5f}"
        epoch = "" if trial["epoch"] is None else str(trial["epoch"])
        settings = [_short(trial["settings"].get(name)) for name in names]
        rows.append([str(trial["number"]), trial["state"], value, epoch, *settings])
    say()
    say("on the validation genes, best first")
    say()
    for line in aligned(rows):
        say(line)
    say()
    say(f"best    {shown(best)}")
    say(f"log     {shown(log_file)}")
    say(f"train   {command}")
    say("exit status 0: searched")


def base_layer_result(
    manifest: Mapping[str, Any], wrote: Sequence[Path], command: str | None, cached: Sequence[str], log_file: Path
) -> None:
    """Print what a base-layer pass ends with, and the command that trains on it, if one does."""
    sites, rows = manifest["sites"], sum(manifest["rows"].values())
    say()
    say(
        f"{manifest['genes']:,} genes, {manifest['positions']:,} positions, {sites['donor']:,} donors, "
        f"{sites['acceptor']:,} acceptors, {rows:,} rows; base model {manifest['base_model']}"
    )
    say()
    for number, path in enumerate(wrote):
        say(f"{'wrote' if not number else '':<7} {shown(path)}")
    say(f"log     {shown(log_file)}")
    say(f"cached  {', '.join(cached) or 'no step'}")
    if command:
        say(f"train   {command}")
    say("exit status 0: scored")


def score_result(manifest: Mapping[str, Any], wrote: Sequence[Path], cached: Sequence[str], log_file: Path) -> None:
    """Print what scoring ends with."""
    model = manifest["model"]
    version = f"{model['name']} version {model['version']}" if model["name"] else "a model directory"
    say()
    say(f"{manifest['genes']:,} genes, {manifest['positions']:,} positions, in {len(manifest['shards'])} shards")
    say()
    say(f"model   {version}, digest {model['digest'][:12]}")
    for number, path in enumerate(wrote):
        say(f"{'wrote' if not number else '':<7} {shown(path)}")
    say(f"log     {shown(log_file)}")
    say(f"cached  {', '.join(cached) or 'no step'}")
    say("exit status 0: scored")


def variants_result(lines: Sequence[str], output: Path, cached: Sequence[str], log_file: Path, *, faulty: bool) -> None:
    """Print what scoring of variants ends with."""
    say()
    for line in lines:
        say(line)
    say()
    say(f"wrote   {shown(output)}")
    say(f"log     {shown(log_file)}")
    say(f"cached  {', '.join(cached) or 'no step'}")
    if faulty:
        say("many records do not fit: are FASTA and variants of one genome build, with the same names of contigs?")
    say(f"exit status {FAULTY_STATUS if faulty else 0}: scored{', but for those that do not fit' if faulty else ''}")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ended(code: int) -> None:
    """Print the last line of a run that came to a decision: `make` hides exit codes behind its own."""
    say(f"exit status {code}: {'promoted' if code == 0 else 'rejected, nothing was promoted'}")


def failure(error: BaseException, *, where: str, log_file: Path, code: int) -> None:
    """Print what failed, why and what to do, as the last lines; the traceback goes to the log file."""
    logging.getLogger("traceback").error("failed %s", where, exc_info=error)
    cause = str(error) if isinstance(error, MetalayerError) else f"{type(error).__name__}: {error}"
    lines = [f"failed  {where}", f"cause   {_indented(cause)}"]
    fix = _fix(error)
    if fix:
        lines.append(f"fix     {fix}")
    if log_file.exists() and (where != BEFORE or not isinstance(error, MetalayerError)):
        lines.append(f"log     {shown(log_file)} (with the traceback)")
    lines.append(_failed(code))
    logging.getLogger("result").error("%s", "\n".join(lines))
    print("\n" + "\n".join(lines), file=sys.stderr, flush=True)


def refused(error: MetalayerError) -> None:
    """Print why a run cannot begin, where there is no folder yet for a log."""
    lines = (f"failed  {BEFORE}", f"cause   {_indented(str(error))}", _failed(error.exit_code))
    print("\n".join(lines), file=sys.stderr, flush=True)


def _failed(code: int) -> str:
    return f"exit status {code}: {'bad input or configuration' if code == 2 else 'failure'}"


def _indented(text: str) -> str:
    return text.replace("\n", "\n        ")


def _fix(error: BaseException) -> str | None:
    """What to do about errors whose message does not say it."""
    again = "run the same command again: finished steps come from the cache"
    if isinstance(error, MetalayerError):
        return None
    if isinstance(error, MemoryError):
        return "use a machine with more memory, or fewer chromosomes (split.train_chroms); then run again"
    return f"see the traceback in the log; once the cause is fixed, {again}"
