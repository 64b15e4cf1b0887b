"""The shipped configurations of real runs end in a decision, with nothing but --data-root."""

import os
import re
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("config", "base_donor", "base_acceptor"), [("real_10000", 0.9647, 0.9842), ("real_80", 0.6295, 0.5488)]
)
def test_real_run(shared: Path, tmp_path: Path, config: str, base_donor: float, base_acceptor: float) -> None:
    command = [str(ROOT / "pipelines" / "run.py"), "--stack", "local"]
    command += ["--config", str(ROOT / "pipelines" / "configs" / f"{config}.yaml"), "--data-root", str(shared / "real")]
    command += ["--set", "train.max_epochs=1", "--set", "evaluate.n_bootstrap=100"]  # of 20 and 1000: minutes
    environment = {**os.environ, "METALAYER_HOME": str(tmp_path / "state")}
    ended = forked.run(command, environment, tmp_path)
    assert ended.returncode in (0, 3), ended.stderr
    genes = "21 held-out genes in 16 clusters, all positions: 989,890 with 133 donors and 132 acceptors"
    assert genes in ended.stdout
    assert "104,918 positions of several genes counted once; 11 left out because overlapping genes label them" in (
        ended.stdout
    )
    for metric, expected in (("donor AP", base_donor), ("acceptor AP", base_acceptor)):
        found = re.search(rf"^{metric} +(\d\.\d+)", ended.stdout, re.MULTILINE)
        assert found, ended.stdout
        assert float(found[1]) == pytest.approx(expected, abs=5e-4)
    word = "promoted" if ended.returncode == 0 else "rejected"
    assert f"gate: {word}" in ended.stdout
