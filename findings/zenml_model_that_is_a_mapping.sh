#!/usr/bin/env bash
# ZenML 0.98.0, string_utils.substitute_string, which goes through all parameters of a run before its first step: it
# calls the iterator of every pydantic model and takes what comes for pairs of field and value. A model that is a
# mapping too, whose iterator gives names as a dictionary's does, stops the run with a ValueError that names neither the
# parameter nor the model, although pydantic validates, copies and dumps it. Output seen:
#   a plain model          {'OPTIONS': Plain(size=2)}
#   a model and a mapping  ValueError: too many values to unpack (expected 2)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check zenml==0.98.0
cd "$folder"
HOME="$folder" ZENML_ANALYTICS_OPT_IN=false "$folder/venv/bin/python" - <<'P' 2>errors || { cat errors >&2; exit 1; }
from collections.abc import Mapping

import zenml
from pydantic import BaseModel
from zenml.utils.string_utils import substitute_string


class Plain(BaseModel):
    size: int = 1


class Dictionary(BaseModel, Mapping):
    many: int = 1

    def __getitem__(self, name):
        return getattr(self, name)

    def __iter__(self):
        return iter(type(self).model_fields)

    def __len__(self):
        return len(type(self).model_fields)


print("zenml", zenml.__version__)
model = Dictionary(many=2)
assert Dictionary.model_validate(model.model_dump()) == model.model_copy()
plain = substitute_string({"options": Plain(size=2)}, str.upper)
print("a plain model         ", plain)
assert plain == {"OPTIONS": Plain(size=2)}
try:
    found = substitute_string({"options": model}, str.upper)
except ValueError as error:
    found = f"ValueError: {error}"
print("a model and a mapping ", found)
assert found == "ValueError: too many values to unpack (expected 2)", found
P
