"""What short commands cost: CPU seconds of whole processes, in turn with those of an earlier build.

The earlier build is `BEFORE` of this repository's history, run by the same interpreter and packages; in a checkout
without history `python -c "import mlflow"` stands for it, which every command on the registry did.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import mlflow

from benchmarks.measure import Result

BEFORE = "c7be506"
ROUNDS = 5
ROOT = Path(__file__).resolve().parents[1]
VERSIONS = 20
SAVE = """import sys
from pathlib import Path
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import save_model
save_model(MetaSpliceModel(), Path(sys.argv[1]), {"base_model": "pwm"})
"""
"""Each build reads model directories of its own format."""


def registry(folder: Path) -> None:
    """A registry in a file, of a name with some versions."""
    uri = f"sqlite:///{folder}/mlflow.db"
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("metalayer-pwm")
    for number in range(VERSIONS):
        tags = {"decision": "promoted", "digest": f"{number:064d}"}
        client.create_model_version("metalayer-pwm", "s3://nowhere/m", tags=tags)
    client.set_registered_model_alias("metalayer-pwm", "champion", str(VERSIONS))


def earlier(folder: Path) -> bool:
    """Put the earlier build into a folder; False where the history does not have it."""
    done = subprocess.run(["git", "-C", ROOT, "archive", BEFORE, "metalayer"], capture_output=True, check=False)
    if done.returncode:
        return False
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return True


def cpu_seconds(program: list[str], source: Path, state: Path) -> float:
    """Of one process of the interpreter, which finds the package in `source`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(source), "METALAYER_HOME": str(state), "PYTHONSAFEPATH": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # both builds are compiled by their first run
    subprocess.run([sys.executable, *program], env=environment, check=True, capture_output=True, cwd=state)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(data: Path) -> list[Result]:
    rows = str(sorted(data.rglob("analysis_sequences_*.tsv"))[0])
    with tempfile.TemporaryDirectory() as place:
        state, old = Path(place) / "state", Path(place) / "before"
        state.mkdir()
        registry(state)
        is_there = earlier(old)
        for source in (ROOT, *([old] if is_there else [])):
            cpu_seconds(["-c", SAVE, str(state / source.name)], source, state)
        score = ["score", rows, "--output", str(state / "scored.tsv"), "--model"]
        commands = {"--help": ["--help"], "doctor": ["doctor"], "registry list": ["registry", "list"], "score": score}
        results = []
        for name, arguments in commands.items():
            program, other = (
                ["-m", "metalayer", *arguments, *([str(state / source.name)] if name == "score" else [])]
                for source in (ROOT, old)
            )
            if not is_there:
                other = ["-c", "import mlflow"]
            times: dict[str, list[float]] = {"now": [], "before": []}
            for number in range(ROUNDS + 1):
                now, before = cpu_seconds(program, ROOT, state), cpu_seconds(other, old, state)
                if number:
                    times["now"].append(now)
                    times["before"].append(before)
            now, before = (statistics.median(times[key]) for key in ("now", "before"))
            baseline = f"of {BEFORE}" if is_there else "of import mlflow"
            results.append(
                Result(f"metalayer {name}, CPU of a process", now * 1000, "ms", f"that {baseline}", now / before)
            )
    return results
