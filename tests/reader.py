"""Blocks of README and docs, run as a reader would: by bash in an empty home folder, and the Python that it finds.

Commands, of `python` and `metalayer`, are forks of a process that has imported: each would spend seconds on imports.
Python blocks, the demo of the README and what serves its model are started as a reader starts them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(bash|python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
SESSION = """
import json, sys, traceback
names, answers = {"__name__": "__main__"}, sys.stdout
sys.stdout = sys.stderr
for line in sys.stdin:
    try:
        exec(compile(json.loads(line), "block", "exec"), names)
        answer = ""
    except BaseException:
        answer = traceback.format_exc()
    sys.stderr.flush()
    print(json.dumps(answer), file=answers, flush=True)
"""


class Reader:
    """A shell in a checkout, and the Python that is started from it; `forks` where it need not import again."""

    def __init__(self, home: Path, *, forks: bool = False) -> None:
        home.mkdir()
        self._forks = forks
        self.checkout = home / "metalayer"
        self.checkout.mkdir()
        for name in ("metalayer", "pipelines", "steps"):  # copied: a run keeps its state beside the code
            # With its bytecode, but for what another process is just writing.
            shutil.copytree(ROOT / name, self.checkout / name, ignore=shutil.ignore_patterns("*.pyc.*"))
        if forks:
            programs = self.checkout / ".venv" / "bin"
            programs.mkdir(parents=True)
            (programs / "activate").write_text(f"export PATH={programs}:$PATH\n")
            forked.executable(programs / "python")
            forked.executable(programs / "metalayer", str(Path(sys.prefix, "bin", "metalayer")))
        else:
            (self.checkout / ".venv").symlink_to(Path(sys.prefix))
        self.log = home / "log"
        self.environment = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "OMP_WAIT_POLICY": "passive"}
        self._python: subprocess.Popen[str] | None = None
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.checkout,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._tell("trap 'echo \"status $? of $BASH_COMMAND\"; exit' ERR")

    def run(self, kind: str, text: str) -> str:
        """What the block prints."""
        return self._tell(text) if kind == "bash" else self._interpret(text)

    def close(self) -> None:
        for process in (self._shell, self._python):
            if process:
                process.communicate(timeout=60)

    def _tell(self, text: str) -> str:
        assert self._shell.stdin and self._shell.stdout
        self._shell.stdin.write(f"{text}\necho end-of-block\n")
        self._shell.stdin.flush()
        lines = []
        for line in self._shell.stdout:
            if line == "end-of-block\n":
                return "".join(lines)
            lines.append(line)
        raise AssertionError("".join(lines))

    def _interpret(self, text: str) -> str:
        if self._python is None:
            program, folder = self._tell("command -v python; pwd").split()
            if self._forks:  # which would log what libraries ask for that a reader has not imported
                program = str(Path(sys.prefix, "bin", "python"))
            self._python = subprocess.Popen(
                [program, "-c", SESSION],
                cwd=folder,
                env={**self.environment, "PATH": f"{Path(program).parent}:{self.environment['PATH']}"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log.open("w"),
                text=True,
            )
        before = self.log.stat().st_size
        assert self._python.stdin and self._python.stdout
        self._python.stdin.write(json.dumps(text) + "\n")
        self._python.stdin.flush()
        answer = json.loads(self._python.stdout.readline())
        printed = self.log.read_bytes()[before:].decode()
        assert not answer, printed + answer
        return printed


OF_OTHERS = ("bcftools",)
"""Programs that a page shows and the README does not ask for: their blocks run where these are installed, as in CI."""


def run_page(reader: Reader, page: Path) -> None:
    """All blocks of a page, in order."""
    blocks, printed = BLOCK.findall(page.read_text("utf-8")), ""
    assert blocks
    is_run = True
    for kind, text in blocks:
        if kind != "text":
            is_run = text.split()[0] not in OF_OTHERS or shutil.which(text.split()[0]) is not None
            printed = reader.run(kind, text) if is_run else ""
        elif is_run:
            assert_shown(text, printed)


def assert_shown(shown: str, printed: str) -> None:
    """Each line that the page shows is printed, in this order; numbers are near: CPUs differ in the last digits."""
    lines = iter(printed.splitlines())
    for line in shown.splitlines():
        words, numbers = _words(line), _numbers(line)
        for other in lines:
            if _words(other) == words and _numbers(other) == pytest.approx(numbers, rel=0.1, abs=0.05):
                break
        else:
            raise AssertionError(f"not printed: {line}\n{printed}")


def _words(line: str) -> str:
    return " ".join(NUMBER.sub("0", line).split())


def _numbers(line: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(line)]
