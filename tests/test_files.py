import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from metalayer.errors import MetalayerError
from metalayer.files import only_one, publish_directory, publish_file, scratch_directory


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


@pytest.mark.parametrize("number", ["1", str(os.getpid()), "00ab34ef"], ids=["first", "living", "random"])
def test_what_was_left_is_told_by_its_lock_not_by_a_process_number(tmp_path: Path, number: str) -> None:
    """In a container every main process is number 1: a draft of that number is not thereby being written."""
    left = tmp_path / f".d.draft-{number}"
    left.mkdir()
    (left / "half").write_text("half")
    (tmp_path / f".f.draft-{number}").write_text("half")
    (tmp_path / f".f.draft-{number}.lock").touch()  # held by nobody
    for end in ("-journal", "-wal", "-shm"):  # that SQLite left beside the file
        (tmp_path / f".f.draft-{number}{end}").write_text("half")
    others = {
        tmp_path / ".f2.draft-1",
        tmp_path / ".f.draft-note",
        tmp_path / ".f.draft-1x",
    }  # of other targets, or none
    for other in others:
        other.touch()
    with publish_directory(tmp_path / "d") as draft:
        (draft / "whole").touch()
    with publish_file(tmp_path / "f") as draft:
        assert not draft.exists()
        draft.write_text("whole")
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["whole"]
    assert set(tmp_path.iterdir()) == {tmp_path / "d", tmp_path / "f", *others}


def test_a_draft_that_is_being_written_stays(tmp_path: Path) -> None:
    """Two that publish one path at one moment write two drafts, and the last one counts."""
    with publish_directory(tmp_path / "d") as first:
        (first / "one").touch()
        with publish_directory(tmp_path / "d") as second:
            assert second != first
            (second / "two").touch()
        assert [path.name for path in (tmp_path / "d").iterdir()] == ["two"]
        assert (first / "one").exists()
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["one"]
    assert list(tmp_path.iterdir()) == [tmp_path / "d"]


def test_many_that_publish_one_directory(tmp_path: Path) -> None:
    """Each replaces the one before, whole; none fails because another was faster."""

    def publish(number: int) -> None:
        with publish_directory(tmp_path / "d") as draft:
            for name in "ab":
                (draft / name).write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, range(64)))
    assert (tmp_path / "d" / "a").read_text() == (tmp_path / "d" / "b").read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "d"]


def test_companions_go_with_a_draft(tmp_path: Path) -> None:
    """A database that is closed badly leaves a journal beside it."""
    for end in (RuntimeError, None):
        with contextlib.suppress(RuntimeError), publish_file(tmp_path / "f") as draft:
            draft.touch()
            draft.with_name(draft.name + "-journal").touch()
            if end:
                raise end
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


def test_a_scratch_directory_goes_in_the_end(tmp_path: Path) -> None:
    (tmp_path / ".s.draft-1").mkdir()
    with scratch_directory(tmp_path / "s") as scratch:
        assert list(tmp_path.glob(".s.draft-*[0-9a-f]")) == [scratch]
        (scratch / "f").touch()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["1", "999999999", "00ab34ef"])
def test_a_directory_set_aside_by_a_killed_rename_comes_back(tmp_path: Path, number: str) -> None:
    aside = tmp_path / f".d.draft-{number}-old"
    aside.mkdir()
    (aside / "f").write_text("old")
    (tmp_path / f".d.draft-{number}").mkdir()
    with pytest.raises(RuntimeError), publish_directory(tmp_path / "d"):
        raise RuntimeError
    assert (tmp_path / "d" / "f").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "d"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write into")
def test_a_folder_that_cannot_be_written_is_no_other_run() -> None:
    with (
        pytest.raises(MetalayerError, match=r"nothing can be written into /proc \(.*\): it is read-only, full, or"),
        only_one(Path("/proc/.out.lock"), "wait"),
    ):
        pass


def test_only_one(tmp_path: Path) -> None:
    """The lock goes with its holder, and follows no link that somebody put in its place."""
    lock = tmp_path / "run.lock"
    for _ in range(2):
        with only_one(lock, "wait"):
            assert str(os.getpid()) in lock.read_text()
            with pytest.raises(MetalayerError, match=rf"process {os.getpid()} on .*, or wait"), only_one(lock, "wait"):
                raise AssertionError
            assert str(os.getpid()) in lock.read_text()
    assert not lock.exists()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    lock.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"), only_one(lock, "wait"):
        raise AssertionError
    assert victim.read_text() == "mine"
