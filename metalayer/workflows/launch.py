"""Training by all GPUs of a machine: `train_bundle` in as many processes, started and watched by torchrun.

As many as there are GPUs, or as torchrun's own variable `PET_NPROC_PER_NODE` says; with one, `train_bundle` runs in
this process. The machine decides, not the configuration: without dropout the model is the same to 1e-5, and with it
each process draws what it drops by itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from metalayer import environment, errors
from metalayer.errors import ConfigError, MetalayerError, TrainingError
from metalayer.files import publish_file
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import TrainConfig
from metalayer.training.distributed import forget_launcher
from metalayer.workflows.train import train_bundle

logger = logging.getLogger(__name__)

PROCESSES = "PET_NPROC_PER_NODE"
_TASK, _RESULT, _ERROR, _STDERR = "task.json", "result.json", "error-{rank}.json", "stderr.txt"
_STDERR_LINES = 20
# By its address: some containers cannot look up the name of their machine, and the processes would wait for ever.
_TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1")
_KILLED = re.compile(r"Signal \d+ \((?!SIGTERM)(SIG\w+)\) received")
"""As torchrun tells of a process; SIGTERM is its own, to the others."""


def processes(config: TrainConfig) -> int:
    """How many processes train together on this machine.

    Raises:
        ConfigError: `PET_NPROC_PER_NODE` that is no number.
    """
    if given := environment.get(PROCESSES):
        if not given.isdecimal() or int(given) < 1:
            raise ConfigError(f"{PROCESSES}: given {given!r}; expected a number of processes, at least 1")
        return int(given)
    if config.device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def train_on_machine(
    rows: Path,
    tracks: Path | None,
    manifest: Mapping[str, Any],
    config: RunConfig,
    output_dir: Path,
    provenance: Mapping[str, Any],
    checkpoints: Path | None = None,
    variants: Path | None = None,
) -> dict[str, Any]:
    """`train_bundle` by all GPUs of this machine; arguments and result are its own.

    SIGTERM ends the processes first and then does what it did before.

    Raises:
        MetalayerError: as in `train_bundle`, of the process that failed first.
        TrainingError: a process that failed otherwise, or was killed.
    """
    number = processes(config.train)
    forget_launcher()
    if number == 1:
        return train_bundle(rows, tracks, manifest, config, output_dir, provenance, checkpoints, variants)
    logger.info("training in %d processes", number)
    with tempfile.TemporaryDirectory(prefix="metalayer-torchrun-") as name:
        folder = Path(name)
        task = {
            "rows": str(rows),
            "tracks": tracks and str(tracks),
            "manifest": manifest,
            "config": config.model_dump(mode="json", exclude={"base"}),
            "output_dir": str(output_dir),
            "provenance": provenance,
            "checkpoints": checkpoints and str(checkpoints),
            "variants": variants and str(variants),
        }
        (folder / _TASK).write_text(json.dumps(task), encoding="utf-8")
        status = _torchrun(number, config.train, folder)
        if status:
            raise _failure(folder, number, status)
        result: dict[str, Any] = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        return result


def _torchrun(number: int, config: TrainConfig, folder: Path) -> int:
    """Run the task of a folder; returns torchrun's exit status."""
    threads = config.threads or max(1, (os.cpu_count() or 1) // number)
    # Options of torchrun, which a launcher of several pods leaves: it would wait for those pods.
    not_torchruns = {name: value for name, value in environment.child().items() if not name.startswith("PET_")}
    with (
        (folder / _STDERR).open("wb") as stderr,
        subprocess.Popen(
            [*_TORCHRUN, "--nproc-per-node", str(number), "-m", __name__, str(folder)],
            env={**not_torchruns, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
        _ended_with_this(process),
    ):
        assert process.stdout
        for line in process.stdout:
            logger.info("%s", line.rstrip())
    return process.returncode


@contextlib.contextmanager
def _ended_with_this(process: subprocess.Popen[str]) -> Iterator[None]:
    """A process that does not outlive this block, nor SIGTERM to this process; it takes its own with it."""

    def end() -> None:
        process.terminate()
        process.wait()

    def forward(number: int, frame: FrameType | None) -> None:
        end()
        if callable(before):
            before(number, frame)
            return
        signal.signal(number, before)
        os.kill(os.getpid(), number)
        os._exit(128 + number)  # of a container's first process, which no signal ends by default

    is_main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    before = signal.getsignal(signal.SIGTERM)
    if is_main:
        signal.signal(signal.SIGTERM, forward)
    try:
        yield
    except BaseException:
        end()
        raise
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def _failure(folder: Path, number: int, status: int) -> MetalayerError:
    """What to raise: of a process that was killed, or the error of the one that failed first, or what torchrun says."""
    told = (folder / _STDERR).read_text(encoding="utf-8", errors="replace")
    if killed := _KILLED.search(told):  # the others have failed for want of it
        return TrainingError(
            f"one of {number} training processes was ended by {killed[1]}, as when memory runs out; give the machine "
            "more memory, or lower train.batch_size"
        )
    left = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(_ERROR.format(rank="*"))]
    if not left:
        end = "\n".join(told.splitlines()[-_STDERR_LINES:])
        return TrainingError(f"torchrun ended with status {status}, and no process says why; its last lines are\n{end}")
    first = min(left, key=lambda error: error["time_ns"])
    logger.debug("%s", first["traceback"])
    who = f"training process {first['rank']} of {number}"
    kind = getattr(errors, first["type"], None)
    if isinstance(kind, type) and issubclass(kind, MetalayerError):
        return kind(f"{who}: {first['message']}")
    return TrainingError(f"{who}: {first['type']}: {first['message']}")


def main(folder: Path) -> int:
    """One of the processes; returns its exit status."""
    rank = int(os.environ["RANK"])
    level = logging.INFO if rank == 0 else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    given = json.loads((folder / _TASK).read_text(encoding="utf-8"))
    try:
        result = train_bundle(
            Path(given["rows"]),
            given["tracks"] and Path(given["tracks"]),
            given["manifest"],
            RunConfig(**given["config"]),
            Path(given["output_dir"]),
            given["provenance"],
            given["checkpoints"] and Path(given["checkpoints"]),
            given["variants"] and Path(given["variants"]),
        )
    except Exception as error:  # noqa: BLE001  reported by the process that started this one
        left = {"rank": rank, "type": type(error).__name__, "message": str(error), "time_ns": time.time_ns()}
        with publish_file(folder / _ERROR.format(rank=rank)) as draft:
            draft.write_text(json.dumps({**left, "traceback": traceback.format_exc()}), encoding="utf-8")
        return 1
    if rank == 0:
        (folder / _RESULT).write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
