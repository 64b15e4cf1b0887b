# The two commands: `make run` and `make test`. Everything else is below them.
SHELL := bash
PYTHON ?= python3
# Passed to pip as it stands, for example to choose an index with CPU builds of torch.
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# What tests and checks need beside it.
TOOLS := $(VENV)/installed-tools
# Of `make serve`: a model by its name, NAME, NAME/VERSION or a folder.
MODEL ?=
# Of the images (docker/Dockerfile): their tag, what they are built on, and the folder of wheels that they install.
TAG ?= latest
BASE ?= python:3.11-slim-bookworm
WHEELS ?= .wheels
COMMIT = $(shell git rev-parse HEAD)$(shell git diff --quiet HEAD || echo -dirty)

.PHONY: run test test-cluster serve check bench bench-serving install images image-model docs clean

run: $(INSTALLED)  ## train, evaluate, gate, register and package on the built-in demo
	$(BIN)/python pipelines/run.py --stack local

# Threads of torch that wait for each other leave the cores to the other process; results are the same. Bytecode is kept,
# whatever the environment says: some hundred processes that tests start would compile the same files again.
test: $(TOOLS)  ## the whole test suite, in two processes
	PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --no-loadscope-reorder tests

test-cluster: $(TOOLS)  ## whole runs on the Kubernetes beside this checkout, brought up first; else skipped
	if [ -x ../shared/cluster/up ]; then ../shared/cluster/up all || true; fi
	$(BIN)/python -m pytest -m cluster -rs

serve: $(INSTALLED)  ## serve the promoted model on 127.0.0.1:3000: MODEL=NAME of several, or NAME/VERSION
	$(BIN)/metalayer serve $(if $(MODEL),--model "$(MODEL)")

check: $(TOOLS)  ## what CI checks before the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## measured here and now, as ratios against a stated baseline
	$(BIN)/python -m benchmarks

bench-serving: $(INSTALLED)  ## the service over a socket: throughput, latency, memory
	$(BIN)/python -m benchmarks serving

docs: $(TOOLS)  ## the pages of docs/ as a site, in site/index.html
	$(BIN)/mkdocs build --strict --quiet

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
		-w $(WHEELS) setuptools '.[formats,language,training,variants,pipeline,kubeflow,serving]'
	rm -rf build $(WHEELS)/metalayer-*
	touch $@

install: $(INSTALLED)

# All from one file of pinned versions: what is installed later moves nothing that is there. What no program of ours
# imports is not compiled (Python does it where it is used), and torch's own test programs go: 0.4 GB of disk together.
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --no-compile $(PIP_ARGS) \
	-c constraints.txt -e
SHOWN = awk '/^Collecting/ && ++found % 25 == 0 {print "  " found " packages found"; fflush()} \
	/^Installing collected/ {print "  installing them"; fflush()}'
UNCOMPILED = /(tests?|testing|_inductor|databricks|faker|statsmodels)/|/(onnxruntime/transformers|plotly/validators|transformers/models)/
define INSTALL
	@set -o pipefail; $(PIP_INSTALL) '.[$(EXTRAS)]' | $(SHOWN)
	@cd $(VENV)/lib/python3*/site-packages && rm -rf torch/test && \
		{ [ ! -d torch/bin ] || find torch/bin -type f ! -name torch_shm_manager -delete; }
	@$(BIN)/python -m compileall -qq -j 0 -x '$(UNCOMPILED)' $(VENV)/lib/python3*/site-packages || true
	touch $@
endef

$(INSTALLED): EXTRAS = formats,language,training,variants,pipeline,kubernetes,serving
$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), some minutes the first time"
	$(INSTALL)

$(TOOLS): EXTRAS = kubeflow,dev
$(TOOLS): $(INSTALLED)
	@echo "installing what tests and checks need into $(VENV)"
	$(INSTALL)

clean:  ## remove the environment, the wheels and all runs, models and packages
	rm -rf $(VENV) .metalayer .wheels*
