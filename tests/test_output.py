"""Output that nobody reads ends no program and changes no status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_pipeline import RUN

TALK = (
    "import sys; sys.path.insert(0, {root!r}); from metalayer import output; output.outlive_readers()\n"
    "for _ in range(20000): print('a line'); print('another', file=sys.stderr)\n"
    "open({done!r}, 'w').write('done'); sys.exit(3)"
)


@pytest.mark.parametrize("redirection", ["| true", "2>&1 | true", ">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_program_goes_on(tmp_path: Path, redirection: str) -> None:
    (tmp_path / "talk.py").write_text(TALK.format(root=str(RUN.parents[1]), done=str(tmp_path / "done")))
    line = f"{{ {sys.executable} talk.py; echo $? >status; }} {redirection}"
    ended = subprocess.run(["sh", "-c", line], cwd=tmp_path, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (tmp_path / "status").read_text() == "3\n"
    assert (tmp_path / "done").read_text() == "done"
    assert b"Error" not in ended.stderr


@pytest.mark.parametrize("redirection", ["2>&1 | true", ">&- 2>&-"])
def test_a_run_and_a_command_keep_log_and_status(tmp_path: Path, redirection: str) -> None:
    run = f"{sys.executable} {RUN} --set train.max_epoch=1"
    command = f"{sys.executable} -m metalayer verify absent.parquet"
    line = f"{{ {run}; echo $? >run; {command}; echo $? >command; }} {redirection}"
    environment = {**os.environ, "METALAYER_HOME": str(tmp_path / "home"), "PYTHONPATH": str(RUN.parents[1])}
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, timeout=60, check=False)
    assert (tmp_path / "run").read_text() == "2\n"
    assert (tmp_path / "command").read_text() == "2\n"
    (log,) = (tmp_path / "home" / "logs").iterdir()
    assert "exit status 2: bad input or configuration" in log.read_text()
