"""Runs that were killed are ended in MLflow by the next one; with ZenML: tests/test_pipeline.py."""

import shutil
from pathlib import Path

from metalayer.registry import tracking
from pipelines import environment


def test_runs_of_these_names_and_no_others(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracking.ensure_experiment(tracking_uri=uri)
    with tracking.service(uri) as client:
        ours = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
        elsewhere = client.create_experiment("of-somebody-else")
        places = ((ours, "run-1"), (ours, "run-2"), (elsewhere, "run-1"), (ours, "run-3"))
        made = [client.create_run(place, run_name=name).info.run_id for place, name in places]
        client.set_terminated(made[3], "FINISHED")
    tracking.end_runs({"run-1", "run-3"}, uri)
    with tracking.service(uri) as client:
        assert [client.get_run(one).info.status for one in made] == ["KILLED", "RUNNING", "RUNNING", "FINISHED"]


def test_a_copy_of_a_state_folder_is_not_the_folder_in_which_its_runs_ran(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "zenml").mkdir(parents=True)
    assert not environment.is_own(state)
    (state / "zenml" / "ready").touch()  # of an earlier version
    assert not environment.is_own(state)
    environment.mark_made(state)
    assert environment.is_own(state)
    copy = Path(shutil.copytree(state, tmp_path / "copy"))
    assert not environment.is_own(copy)
    state.rename(tmp_path / "moved")
    assert environment.is_own(tmp_path / "moved")
