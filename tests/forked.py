"""Programs in processes of their own that need not import what others have imported: forks of one that has.

A run of the pipeline spends half of its time importing torch, ZenML, MLflow and Evidently. Here one process imports
these, once in a test process, and each program is a fork of it: with its own arguments, folder, environment, files for
its output, signals and exit status, and with our own modules imported again. Programs that tests look at for what they
import, and those that the README and docs name, are started as everywhere else.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.environment import _QUIET

_IMPORTED = (
    *("torch", "torch.onnx", "torch._dynamo", "torch.export", "torch.utils.tensorboard", "onnx", "onnxscript"),
    *("sklearn.metrics", "sklearn.isotonic", "scipy.stats", "pandas", "matplotlib.pyplot", "plotly.graph_objs"),
    *("mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store"),
    *("mlflow.store.model_registry.sqlalchemy_store", "zenml", "zenml.zen_stores.sql_zen_store"),
    *("zenml.integrations.mlflow.flavors", "zenml.orchestrators.local.local_orchestrator", "evidently"),
    *("evidently.presets", "bentoml"),
)
"""None of them starts threads that a program would miss: polars, which MLflow imports, does so when first used."""
_PROGRAM = """
import gc, importlib, json, os, pathlib, runpy, sys
names, tests, folder = json.loads(sys.argv[1])
for name in names:
    importlib.import_module(name)
sys.path.insert(0, tests)
importlib.import_module("databases").copy_migrated(pathlib.Path(folder, "mlflow.db"))
del sys.path[0]
zenml = sys.modules["zenml.config.global_config"].GlobalConfiguration
zenml._reset_instance()  # a program reads its own
gc.collect()
gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.setsid()
os.chdir(asked["folder"])
os.environ.clear()
os.environ.update(asked["environment"])
for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
    file = os.open(path, os.O_RDWR)
    os.dup2(file, number)
    os.close(file)
what, *sys.argv[1:] = (argument for argument in asked["arguments"] if argument != "-P")
if what == "-c":
    code = compile(sys.argv.pop(1), "<string>", "exec")
    sys.path[0] = ""
    exec(code, {"__name__": "__main__"})
else:
    sys.argv[0], sys.path[0] = what, os.path.dirname(what)
    runpy.run_path(what, run_name="__main__")
"""


class Program:
    """A running program, like `subprocess.Popen` with text."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.arguments = list(arguments)
        self._files = [tempfile.NamedTemporaryFile("r", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        out, err = (file.name for file in self._files)
        self._source = _source()
        self.pid = self._source.start(
            {
                "arguments": self.arguments,
                "environment": dict(environment),
                "folder": str(folder),
                "out": out,
                "err": err,
            }
        )

    def wait(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Its output and exit status, once it has ended; ends it where that takes longer than `timeout` seconds."""
        code = self._source.ended(timeout)
        if code is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._source.ended(60)
            raise AssertionError(f"{self.arguments}: not within {timeout:g} s\n{self._text()}")
        return subprocess.CompletedProcess(self.arguments, code, *self._text())

    def _text(self) -> list[str]:
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read())
        return texts


def run(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` gives: a file, or `-c` and a program, and what follows."""
    return Program(arguments, environment, folder).wait(timeout)


class _Source:
    """The process that has imported, and starts one program after the other."""

    def __init__(self) -> None:
        self._databases = tempfile.TemporaryDirectory()
        # What ZenML and MLflow read when they are imported, set like a program of ours sets it.
        environment = {**os.environ, **_QUIET, "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps([_IMPORTED, str(Path(__file__).parent), self._databases.name])],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        self._answers = self._process.stdout
        assert self._line(120) == b"ready\n"
        atexit.register(self._process.kill)

    def start(self, asked: Mapping[str, object]) -> int:
        """Its process id."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._line(60) or b"")

    def ended(self, timeout: float) -> int | None:
        """The exit status of what was started last, negative of a signal; None where it goes on after `timeout`."""
        line = self._line(timeout)
        return None if line is None else int(line)

    def _line(self, timeout: float) -> bytes | None:
        ready, _, _ = select.select([self._answers], [], [], timeout)
        return self._answers.readline() if ready else None


@functools.cache
def _source() -> _Source:
    return _Source()
