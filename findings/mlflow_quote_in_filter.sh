#!/usr/bin/env bash
# MLflow 3.17.2, search_registered_models: a name that holds an apostrophe. The filter language has no way to write it
# within single quotes: doubled, as in SQL, or behind a backslash it is accepted and finds nothing, without an error.
# Within double quotes it is found; a name that holds both kinds of quotes cannot be asked for with "=". Output seen:
#   name='splice-it''s'       []
#   name='splice-it\'s'       []
#   name="splice-it's"        ["splice-it's"]
#   name LIKE 'splice-it%'    ["splice-it's"]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlflow==3.17.2
cd "$folder"
"$folder/venv/bin/python" - <<'P' 2>errors || { cat errors >&2; exit 1; }
import mlflow

uri = "sqlite:///registry.db"
client = mlflow.MlflowClient(uri, uri)
client.create_registered_model("splice-it's")
print("mlflow", mlflow.__version__)
expected = {
    "name='splice-it''s'": [],
    "name='splice-it\\'s'": [],
    "name=\"splice-it's\"": ["splice-it's"],
    "name LIKE 'splice-it%'": ["splice-it's"],
}
for asked, names in expected.items():
    found = [model.name for model in client.search_registered_models(filter_string=asked)]
    print(f"{asked:25} {found}")
    assert found == names, (asked, found)
P
