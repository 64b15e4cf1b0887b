# The two commands: `make run` and `make test`. Everything else is below them.
PYTHON ?= python3
# Passed to pip as it stands, for example to choose an index with CPU builds of torch.
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: run test serve check bench bench-serving install clean

run: $(INSTALLED)  ## train, evaluate, gate, register and package on the built-in demo
	$(BIN)/python pipelines/run.py --stack local

test: $(INSTALLED)  ## the whole test suite
	$(BIN)/python -m pytest

serve: $(INSTALLED)  ## serve the promoted model on 127.0.0.1:3000
	$(BIN)/metalayer serve

check: $(INSTALLED)  ## what CI checks before the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## measured here and now, as ratios against a stated baseline
	$(BIN)/python -m benchmarks

bench-serving: $(INSTALLED)  ## the service over a socket: throughput, latency, memory
	$(BIN)/python -m benchmarks serving

install: $(INSTALLED)

# One call from one file of pinned versions: installing extras later would move what is installed.
$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(PIP_ARGS) -c constraints.txt -e '.[language,training,pipeline,kubeflow,serving,dev]'
	touch $@

clean:  ## remove the environment and all runs, models and packages
	rm -rf $(VENV) .metalayer
