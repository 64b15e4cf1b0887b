"""The README is true: its commands run, and the demo prints the table that stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.reader import Reader, run_page
from tests.servers import free_port, wait_until_ready

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split(" #")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if line.strip()
]
NUMBER = re.compile(r"[+-]?\d+\.\d+")


def table_lines(text: str) -> dict[str, list[float]]:
    """Metric to its numbers."""
    return {
        match[1]: [float(number) for number in NUMBER.findall(match[2])]
        for match in re.finditer(r"^(PR-AUC splice|donor AP|acceptor AP|top-k \w+|ECE)  (.*)$", text, re.MULTILINE)
    }


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = {command.split()[1] for command in COMMANDS if command.startswith("make ")} | {"bench", "check"}
    assert named >= {"run", "test", "serve"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_paths_exist() -> None:
    for path in re.findall(r"`((?:pipelines|metalayer|steps|tests|benchmarks)/[\w./]*)`", README):
        assert (ROOT / path).exists(), path
    library = next(line for line in README.splitlines() if line.startswith("| `metalayer/`"))
    for name in re.findall(r"`(\w+(?:\.py|/))`", library):
        assert (ROOT / "metalayer" / name).exists() or name == "metalayer/", name


@pytest.mark.integration
def test_the_demo_prints_the_table_and_the_promoted_model_answers(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "home")
    try:
        printed = table_lines(reader.run("bash", ".venv/bin/python pipelines/run.py --stack local"))
        expected = table_lines(README)
        assert len(expected) == 6
        for metric, numbers in expected.items():
            assert printed[metric] == pytest.approx(numbers, abs=0.02), metric
        serve_and_query(reader.checkout, reader.environment, reader.checkout / ".metalayer")
        run_page(reader, ROOT / "docs" / "serving.md")
    finally:
        reader.close()


def serve_and_query(folder: Path, environment: dict[str, str], state: Path) -> None:
    """The README's own curl command, at a free port, gives what the evaluation gave."""
    port, log = free_port(), folder / "serve.log"
    serve = [str(Path(sys.executable).with_name("metalayer")), "serve", "--port", str(port)]
    curl = next(command for command in COMMANDS if command.startswith("curl")).replace(":3000", f":{port}")
    with (
        log.open("w") as told,
        subprocess.Popen(serve, env=environment, cwd=folder, stdout=told, stderr=subprocess.STDOUT) as server,
    ):
        try:
            wait_until_ready(server, f"http://127.0.0.1:{port}", log)
            answer = subprocess.run(shlex.split(curl), cwd=folder, capture_output=True, check=True, timeout=60)
            assert answer.stdout.count(b'"donor"') == 3
            check_golden(state, f"http://127.0.0.1:{port}")
        finally:
            server.terminate()
            server.wait(30)


def check_golden(state: Path, url: str) -> None:
    """Served probabilities are those of the evaluate step's own output, to a millionth."""
    import polars as pl

    from metalayer.schema import CLASSES, ROW_SCORES

    golden = pl.read_parquet(next(iter((state / "artifacts" / "evaluate" / "golden").rglob("table.parquet"))))
    rows = golden.select("sequence", "index", *ROW_SCORES).to_dicts()
    answers = httpx.post(f"{url}/v1/score", json={"rows": rows}).json()["rows"]
    assert len(answers) == len(golden) > 50
    for name in CLASSES:
        assert [row[name] for row in answers] == pytest.approx(golden[name].to_list(), abs=1e-6)


@pytest.mark.integration
def test_commands_for_own_data_run(tmp_path: Path) -> None:
    """The simulate, init, run and doctor lines as they stand, in a plain shell."""
    (block,) = [text for kind, text in BLOCKS if kind == "bash" and text.startswith(".venv/bin/")]
    reader = Reader(tmp_path / "home", forks=True)
    try:
        printed = reader.run("bash", block)
    finally:
        reader.close()
    assert "gate: promoted" in printed
