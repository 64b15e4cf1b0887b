#!/usr/bin/env bash
# MLflow 3.17.2, models from code in a store of local files: loading a model changes what is stored. The first load puts a
# file registered_model_meta beside what was logged, though nothing was registered; and as the model's code is imported
# where it lies, Python leaves bytecode within the model's artifacts. Who compares the folder with what was logged, or
# keeps digests of it, finds two files more. Output seen:
#   mlflow 3.17.2
#   loaded without bytecode   1 file more: registered_model_meta
#   loaded as usual           1 file more: __pycache__
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlflow==3.17.2
cd "$folder"
cat >model.py <<'P'
import mlflow


class Half(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input / 2


mlflow.models.set_model(Half())
P
env -u PYTHONDONTWRITEBYTECODE "$folder/venv/bin/python" - <<'P' 2>errors || { cat errors >&2; exit 1; }
import sys
from pathlib import Path

import mlflow
import pandas as pd

mlflow.set_tracking_uri("sqlite:///mlflow.db")
print("mlflow", mlflow.__version__)
sys.dont_write_bytecode = True
with mlflow.start_run():
    logged = mlflow.pyfunc.log_model(name="half", python_model="model.py", pip_requirements=[])
store = Path("mlruns")
here = lambda: {path for path in store.rglob("*") if path.is_file()}
before, rows = here(), pd.DataFrame({"x": [1.0, 2.0]})
assert any(path.name == "model.py" for path in before), before
mlflow.pyfunc.load_model(logged.model_uri).predict(rows)
(meta,) = here() - before
print(f"loaded without bytecode   1 file more: {meta.name}")
assert meta.name == "registered_model_meta"
sys.dont_write_bytecode = False
mlflow.pyfunc.load_model(logged.model_uri).predict(rows)
(more,) = here() - before - {meta}
print(f"loaded as usual           1 file more: {more.parent.name}")
assert more.suffix == ".pyc" and more.parent.name == "__pycache__"
P
