"""Which of the worlds that the environment names a process takes part in."""

import logging
import os

import pytest

from metalayer.errors import ConfigError, TrainingError
from metalayer.training import distributed
from tests.servers import free_port


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables of a launcher other than torchrun."""
    for name in [name for name in os.environ if name.startswith(distributed.LAUNCHERS)]:
        monkeypatch.delenv(name)
    left = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**left, "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_what_another_launcher_left_is_no_world(launched: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert distributed.join("cpu") == distributed.World()
    assert "WORLD_SIZE=2 is set, and torchrun did not start this process" in caplog.text
    launched.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="start all with torchrun, or unset both"):
        distributed.join("cpu")
    launched.setenv("WORLD_SIZE", "")
    assert distributed.join("cpu") == distributed.World()


def test_a_pipeline_forgets_it(launched: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    launched.setenv("TORCHELASTIC_RUN_ID", "none")
    launched.setenv("OTHER", "kept")
    distributed.forget_launcher()
    assert "WORLD_SIZE=2 in the environment is not for this run" in caplog.text
    assert not [name for name in os.environ if name.startswith(distributed.LAUNCHERS)]
    assert os.environ["OTHER"] == "kept"


def test_others_that_do_not_come_are_not_waited_for(
    launched: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    launched.setenv("TORCHELASTIC_RUN_ID", "none")
    launched.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    launched.setattr(distributed, "_MEET_S", 1)
    caplog.set_level(logging.INFO)
    with pytest.raises(TrainingError, match="process 0 of 2 found no others at 127"):
        distributed.join("cpu")
    assert "process 0 of 2: meeting the others at 127.0.0.1:" in caplog.text
