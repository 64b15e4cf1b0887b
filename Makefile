# The two commands: `make run` and `make test`. Everything else is below them.
SHELL := bash
PYTHON ?= python3
# Passed to pip as it stands, for example to choose an index with CPU builds of torch.
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# Of the images (docker/Dockerfile): their tag, what they are built on, and the folder of wheels that they install.
TAG ?= latest
BASE ?= python:3.11-slim-bookworm
WHEELS ?= .wheels
COMMIT = $(shell git rev-parse HEAD)$(shell git diff --quiet HEAD || echo -dirty)

.PHONY: run test test-cluster serve check bench bench-serving install images image-model clean

run: $(INSTALLED)  ## train, evaluate, gate, register and package on the built-in demo
	$(BIN)/python pipelines/run.py --stack local

# Threads of torch that wait for each other leave the cores to the other process; results are the same.
test: $(INSTALLED)  ## the whole test suite, in two processes
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test-cluster: $(INSTALLED)  ## whole runs on the Kubernetes beside this checkout, brought up first; else skipped
	if [ -x ../shared/cluster/up ]; then ../shared/cluster/up all || true; fi
	$(BIN)/python -m pytest -m cluster -rs

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

images: image-serving image-serving-language image-pipeline image-pipeline-gpu  ## the container images

image-model:  ## the serving image with a model in it: BENTO=FOLDER, of a Bento
	DOCKER_BUILDKIT=1 docker build --file docker/model.Dockerfile --tag metalayer-model:$(TAG) \
		--build-arg SERVING=metalayer-serving:$(TAG) $(BENTO)

image-%: $(WHEELS)/made
	DOCKER_BUILDKIT=1 docker build --file docker/Dockerfile --target $* --tag metalayer-$*:$(TAG) \
		--build-arg BASE=$(BASE) --build-arg WHEELS=$(WHEELS) --build-arg COMMIT=$(COMMIT) .

$(WHEELS)/made: constraints.txt pyproject.toml
	rm -rf $(WHEELS)
	$(PYTHON) -m pip wheel --disable-pip-version-check --progress-bar off --quiet $(PIP_ARGS) -c constraints.txt \
		-w $(WHEELS) setuptools '.[language,training,pipeline,kubeflow,serving]'
	rm -rf build $(WHEELS)/metalayer-*
	touch $@

install: $(INSTALLED)

# One call from one file of pinned versions: installing extras later would move what is installed.
$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), some minutes the first time"
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(PIP_ARGS) \
		-c constraints.txt -e '.[language,training,pipeline,kubeflow,serving,dev]' | awk ' \
		/^Collecting/ && ++found % 25 == 0 {print "  " found " packages found"; fflush()} \
		/^Installing collected/ {print "  installing them"; fflush()}'
	touch $@

clean:  ## remove the environment, the wheels and all runs, models and packages
	rm -rf $(VENV) .metalayer .wheels*
