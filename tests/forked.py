"""Programs in processes of their own that need not import what others have imported: forks of one that has.

A run of the pipeline spends half of its time importing torch, ZenML, MLflow and Evidently. Here one process imports
these, once in a test process, and each program is a fork of it: with its own arguments, folder, environment, standard
files, signals and exit status, and with our own modules imported again; the Python that it finds in `sys.executable`
forks, too. Programs that tests look at for what they import, and the demo of the README, are started as everywhere
else.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shlex
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
    *("evidently.presets", "bentoml", "networkx", "safetensors.torch", "plotly.offline", "git"),
    *("torch.export._trace", "torch._inductor.codecache", "torch.onnx._internal.exporter._compat"),
    *("torch.onnx._internal.exporter._torchlib.ops", "onnxscript.function_libs.torch_lib.ops", "onnxscript.rewriter"),
    *("mlflow.tracing.provider", "matplotlib.backends.backend_svg"),
    *("zenml.pipelines.pipeline_definition", "zenml.execution.pipeline.utils", "zenml.execution.step.utils"),
    *("zenml.integrations.mlflow.experiment_trackers", "zenml.integrations.mlflow.model_registries"),
    *(f"zenml.integrations.{name}.materializers" for name in ("numpy", "pandas", "pillow", "pytorch", "scipy")),
    *("zenml.login.credentials_store", "zenml.log_stores", "zenml.deployers", "zenml.sandboxes"),
    *("opentelemetry.sdk.trace", "opentelemetry.sdk._logs"),
)
"""None of them starts threads that a program would miss: polars, which MLflow imports, does so when first used."""
_SOURCE = """
import contextlib, gc, importlib, json, os, pathlib, runpy, selectors, signal, socket, sys
names, tests, folder, opset = json.loads(sys.argv[1])
for name in names:
    importlib.import_module(name)
sys.path.insert(0, tests)
importlib.import_module("databases").copy_migrated(pathlib.Path(folder))
importlib.import_module("exporter").collect_once()
sys.modules["torch.onnx._internal.exporter._registration"].ONNXRegistry.from_torchlib(opset_version=opset)
del sys.path[0]
zenml = sys.modules["zenml.config.global_config"].GlobalConfiguration
zenml._reset_instance()  # a program reads its own
gc.collect()
gc.freeze()
here = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
here.bind(f"{folder}/socket")
here.listen()
open_files = selectors.DefaultSelector()
open_files.register(here, selectors.EVENT_READ)
open_files.register(sys.stdin, selectors.EVENT_READ)  # ends with the test process
print("ready", flush=True)
child = 1
while child:
    (found, _), *_ = open_files.select()
    if found.fileobj is here:
        asker, _ = here.accept()
        text, files, _, _ = socket.recv_fds(asker, 1 << 20, 3)
        if not text:  # killed before it has asked
            asker.close()
            continue
        child = os.fork()
        if child:
            for file in files:
                os.close(file)
            with contextlib.suppress(OSError):
                asker.send(str(child).encode())
            open_files.register(asker, selectors.EVENT_READ, child)
            open_files.register(os.pidfd_open(child), selectors.EVENT_READ, (child, asker))
    elif found.fileobj is sys.stdin:
        sys.exit()
    elif isinstance(found.data, int):  # whoever asked was killed, and so is what it asked for
        open_files.unregister(found.fileobj)
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(found.data, signal.SIGKILL)
    else:
        ended, asker = found.data
        code = os.waitstatus_to_exitcode(os.waitpid(ended, 0)[1])
        open_files.unregister(found.fd)
        os.close(found.fd)
        with contextlib.suppress(KeyError):
            open_files.unregister(asker)
        with contextlib.suppress(OSError):
            asker.send(str(code).encode())
        asker.close()
os.setsid()
for number, file in enumerate(files):
    os.dup2(file, number)
for file in (*files, asker.fileno(), *(one.fd for one in open_files.get_map().values() if one.fd)):
    os.close(file)
open_files.close()
asked = json.loads(text)
os.chdir(asked["folder"])
sys.executable = asked["executable"]
os.environ.clear()
os.environ.update(asked["environment"])
what, *sys.argv[1:] = (argument for argument in asked["arguments"] if argument != "-P")
if what == "-c":
    code = compile(sys.argv.pop(1), "<string>", "exec")
    sys.path[0] = ""
    exec(code, {"__name__": "__main__"})
elif what == "-m":
    sys.path[0] = os.getcwd()
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
else:
    sys.argv[0], sys.path[0] = what, os.path.dirname(what)
    runpy.run_path(what, run_name="__main__")
"""
_ASKER = """
import json, os, signal, socket, sys
where, *arguments = sys.argv[1:]
executable = os.environ.pop("FORKED_BY", os.path.dirname(where) + "/python")
if arguments[0].startswith("-") and arguments[0] not in ("-P", "-c", "-m"):  # as libraries start what is to stand alone
    os.execv(sys.executable, [sys.executable, *arguments])
source = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
source.connect(where)
asked = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd(), "executable": executable}
socket.send_fds(source, [json.dumps(asked).encode()], [0, 1, 2])
child = int(source.recv(64))
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(child, number))
code = int(source.recv(64) or -signal.SIGKILL)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def command(arguments: Sequence[str]) -> list[str]:
    """What does as `python ARGUMENTS`: a file, `-c` and a program, or `-m` and a module, and what follows."""
    return [*_source(), *arguments]


def executable(path: Path, *arguments: str) -> Path:
    """Write such a `python` that takes any arguments after these; without, it is `sys.executable` of what it runs."""
    return _written(path, command(arguments), "" if arguments else f"FORKED_BY={shlex.quote(str(path))} ")


def run(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """What `python ARGUMENTS` gives; ends it where that takes longer than `timeout` seconds."""
    return subprocess.run(
        command(arguments),
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@functools.cache
def _source() -> tuple[str, ...]:
    """Starts the process that has imported; the command that asks it for a program."""
    from metalayer.release.onnx import OPSET

    folder = tempfile.TemporaryDirectory()
    # What ZenML and MLflow read when they are imported, set like a program of ours sets it.
    environment = {**os.environ, **_QUIET, "PYTHONUNBUFFERED": "1"}
    given = json.dumps([_IMPORTED, str(Path(__file__).parent), folder.name, OPSET])
    process = subprocess.Popen(
        [sys.executable, "-c", _SOURCE, given],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(folder.cleanup)
    atexit.register(process.kill)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    asker = Path(folder.name, "asker.py")
    asker.write_text(_ASKER, "utf-8")
    found = (sys.executable, "-I", "-S", str(asker), f"{folder.name}/socket")
    _written(asker.with_name("python"), found)
    _written(asker.with_name("metalayer"), (*found, str(Path(sys.prefix, "bin", "metalayer"))))
    return found


def _written(path: Path, program: Sequence[str], named: str = "") -> Path:
    path.write_text(f'#!/bin/sh\n{named}exec {shlex.join(program)} "$@"\n', "utf-8")
    path.chmod(0o755)
    return path
