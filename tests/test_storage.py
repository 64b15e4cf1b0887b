"""Disks that are full or read-only: a message with the cause, and the exit status that it has elsewhere."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.exceptions import MlflowException

from metalayer.errors import InputError, MetalayerError
from metalayer.storage import explained
from pipelines import console
from tests import containers
from tests.releases import make_bundle, make_golden, score_rows
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]


def sqlite_full(_: Path) -> None:
    with sqlite3.connect(":memory:") as database:
        database.execute("PRAGMA max_page_count = 2")
        database.execute("CREATE TABLE a (b)")
        database.execute("INSERT INTO a VALUES (zeroblob(100000))")


def sqlite_read_only() -> None:
    with sqlite3.connect("file::memory:?mode=memory", uri=True) as database:
        database.execute("PRAGMA query_only = 1")
        database.execute("CREATE TABLE a (b)")


WRITERS = {
    "python": lambda full: full.write_text("a" * 100_000),
    "polars": lambda full: pl.DataFrame({"a": range(100_000)}).write_csv(full),
    "pyarrow": lambda full: pq.write_table(pa.table({"a": range(100_000)}), full),
    "sqlite": sqlite_full,
}


@pytest.mark.parametrize("library", WRITERS)
def test_a_full_disk_in_the_words_of(library: str, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")  # a link, as pyarrow removes what it could not write
    with pytest.raises(Exception, match=r"full|space") as caught:
        WRITERS[library](full)
    told = explained(caught.value)
    assert type(told) is MetalayerError
    assert "No space left on device; free some space on the disk" in str(told)


def test_what_cannot_be_written() -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite_read_only()
    assert isinstance(explained(caught.value), InputError)
    with pytest.raises(NotADirectoryError) as caught:
        Path("/dev/null/a").write_text("")
    assert str(explained(caught.value)).startswith("/dev/null/a: Not a directory; name a path that can be written")


def test_other_errors_are_not_those_of_a_disk() -> None:
    told = ValueError("a sentence with No space left on device")
    for error in (KeyError("a"), ConnectionRefusedError(111, "refused"), FileNotFoundError(2, "absent", "/a")):
        assert explained(error) is None
        told.__context__ = error
    assert explained(MlflowException("error code 403 != 200. Response body: 'Permission denied'")) is None
    assert explained(MetalayerError("No space left on device")) is None
    caused = RuntimeError("a step failed")
    caused.__cause__ = OSError(28, "No space left on device", "/a")
    assert str(explained(caused)).startswith("/a: No space left on device; ")


def on_disks(full: Path, read_only: Path, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program where one folder is a disk of 16 KiB, and another one that is read-only and has a folder `home`."""
    containers.needs_mounts()
    full.mkdir()
    read_only.mkdir()
    mounts = 'mount -t tmpfs -o size=16k a "$0"; mount -t tmpfs a "$1"; mkdir "$1/home"; mount -o remount,ro "$1"; '
    shell = ["sh", "-ec", f'{mounts} exec "$2" -P -c "$3"', str(full), str(read_only), sys.executable, program]
    return subprocess.run(
        [*containers.MOUNTS, *shell],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


COMMANDS = """
import json, os, sys
from metalayer.cli import main
from metalayer.registry.bento import build_bento
from metalayer.storage import explained
os.environ["BENTOML_HOME"] = {full!r} + "/bentoml"
try:
    build_bento(*{release!r}, name="metalayer-pwm", version=1, facts={{}})
except Exception as error:
    print(explained(error))
codes = []
for home, arguments in json.loads({given!r}):
    os.environ["BENTOML_HOME"] = home
    codes.append(main(arguments))
print(json.dumps(codes))
"""


@pytest.mark.integration
def test_commands(simulation: Path, tmp_path: Path) -> None:
    full, read_only, rows = tmp_path / "full", tmp_path / "read-only", tmp_path / "rows.parquet"
    model = make_bundle(tmp_path / "model")
    pl.DataFrame(score_rows(2000)).write_parquet(rows)
    scores = simulation / "nucleotide_scores" / "pwm_chr1.parquet"
    commands = [("read-only/home", ["serve", "--bento", str(model), "--port", str(free_port())])]
    for disk in (full, read_only):
        for arguments in (
            ["simulate", "--output", f"{disk}/demo", "--genes", "44"],
            ["score", str(rows), "--model", str(model), "--output", f"{disk}/scores.parquet"],
            ["score", str(rows), "--model", str(model), "--output", f"{disk}/scores.tsv"],
            ["evaluate", "--model", str(model), "--scores", str(scores), "--output", f"{disk}/report.json"],
        ):
            commands.append(("home", arguments))
    release = (str(model), str(make_golden(model, tmp_path / "golden.parquet")))
    given = json.dumps([(str(tmp_path / home), arguments) for home, arguments in commands])
    done = on_disks(full, read_only, COMMANDS.format(given=given, full=str(full), release=release))
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2, *[1] * 4, *[2] * 4], done.stderr
    assert "/bentoml/tmp/.build-metalayer-pwm-1" in done.stdout.splitlines()[0]
    assert ": No space left on device; free some space" in done.stdout.splitlines()[0]
    lines = [line.removeprefix("metalayer ") for line in done.stderr.splitlines() if line.startswith("metalayer ")]
    told = [line.partition("; ")[0] for line in lines]
    assert told[0] == f"serve: {read_only}/home: Read-only file system"
    assert told[1:5] == [
        f"simulate: {full}/demo: No space left on device",
        f"score: {full}/scores.parquet: No space left on device",
        "score: No space left on device",
        f"evaluate: {full}/report.json: No space left on device",
    ]
    assert [one.partition(f": {read_only}/")[2] for one in told[5:]] == [
        f"{name}: Read-only file system" for name in ("demo", "scores.parquet", "scores.tsv", "report.json")
    ]


def test_the_log_file_of_a_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On a disk that is full: that it cannot be written is said once, and the run goes on."""
    log_file = tmp_path / "run.log"
    log_file.symlink_to("/dev/full")
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        console.start(log_file, verbose=False)
        for number in range(3):
            logging.getLogger("metalayer").info("line %d", number)
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["line 0", f"log file {log_file}", "line 1", "line 2"]
    assert "No space left on device" in lines[1]
