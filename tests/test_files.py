import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from metalayer.files import publish_directory, publish_file


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with publish_file(target) as draft:
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "d"
    for text in ("one", "two"):
        with publish_directory(target) as draft:
            (draft / f"{text}.txt").write_text(text)
    assert [path.name for path in target.iterdir()] == ["two.txt"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_that_cannot_be_renamed_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "d"
    target.mkdir()
    (target / "a").write_text("old")
    rename = Path.rename

    def fail(self: Path, to: Path) -> Path:
        if self.name.startswith(".d.draft") and not self.name.endswith("-old"):
            raise OSError(28, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="No space left"), publish_directory(target) as draft:
        (draft / "a").write_text("new")
    assert (target / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_kill_9_in_mid_write_leaves_the_old_file_and_the_next_run_tidies_up(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    code = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from metalayer.files import publish_file
        with publish_file(Path({str(target)!r})) as draft:
            with draft.open("wb") as handle:
                handle.write(b"x" * 1000)
                handle.flush()
                time.sleep(60)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".a.bin.draft-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.glob(".a.bin.draft-*"))
    with publish_file(target) as draft:
        draft.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The kernel refuses the write (a file size limit stands in for a full disk: same error path)."""
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    code = textwrap.dedent(
        f"""
        import resource, sys
        from pathlib import Path
        from metalayer.files import publish_file
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            with publish_file(Path({str(target)!r})) as draft:
                draft.write_bytes(b"x" * 100_000)
        except OSError:
            sys.exit(9)
        """
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_set_aside_by_a_killed_rename_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".d.draft-999999999-old"
    aside.mkdir()
    (aside / "f").write_text("old")
    with pytest.raises(RuntimeError), publish_directory(tmp_path / "d"):
        raise RuntimeError
    assert (tmp_path / "d" / "f").read_text() == "old"
