# Every chore is one command. `make` alone lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= digits
CORES ?= 2
PIP = $(BIN)/python -m pip install --quiet --no-compile
REQUIREMENTS ?= requirements.txt  # requirements-dev.txt brings all in one go
export RAY_USAGE_STATS_ENABLED ?= 0
unexport PYTHONDONTWRITEBYTECODE  # some images set it, and each of hundreds of processes would compile all it loads

.DEFAULT_GOAL := help
.PHONY: help install search test format lint type test-ray test-all test-gpu smoke bench cluster-up cluster-down audit check clean

help:  ## list the chores
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# -- set-up: a stamp per list of packages, so nothing is installed twice ---------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed, $(PYTHON) is older; give PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(PYTHON) -m virtualenv $(VENV); } || \
		{ echo "cannot make $(VENV): install the package python3-venv, or virtualenv" >&2; exit 2; }

# uv unpacks torch in a quarter of pip's time. It does not read pip's settings, so it is told where pip looks, and to choose
# from all of that, as pip does; what does not come to anything with it, pip does, or tells.
UV := uv==0.13.9
define UV_INSTALL
set -a; eval "$$($(BIN)/python -m pip config list | sed -nE "s/^[^=]*\.find-links=/UV_FIND_LINKS=/p; \
	s/^[^=]*\.extra-index-url=/UV_INDEX=/p; s/^[^=]*\.index-url=/UV_DEFAULT_INDEX=/p; \
	s/^[^=]*\.constraint=/UV_CONSTRAINT=/p; s/^[^=]*\.cert=/SSL_CERT_FILE=/p")"; \
	UV_INDEX_STRATEGY=unsafe-best-match $(BIN)/uv pip install --quiet --python $(BIN)/python -r $(REQUIREMENTS)
endef

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	@echo "installing $(strip $(REQUIREMENTS)) into $(VENV): torch and ray are large, the first time takes minutes"
	@$(PIP) $(UV) && { $(UV_INSTALL); } || $(PIP) -r $(REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@
	@$(if $(filter requirements-dev.txt,$(REQUIREMENTS)),touch $(VENV)/.installed-dev)

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

# Of what is installed, what nothing here loads as a rule: all would take several times as long to compile.
UNUSED := /tests?/|/ray/(rllib|serve|llm|train|tune|data)/|/torch/(_inductor|_dynamo|onnx|testing/_internal)/
UNUSED := $(UNUSED)|/(mlflow|databricks|moto|cfnlint|graphql|aws_xray_sdk|sympy|networkx|torchgen)/
UNUSED := $(UNUSED)|/(pip|setuptools|mypyc?|fontTools|pygments/lexers)/

$(VENV)/.compiled: $(VENV)/.installed
	@$(BIN)/python -m compileall -q -j 0 -x '$(UNUSED)' $(VENV)/lib >/dev/null || true  # some packages hold templates
	@touch $@

install: $(VENV)/.compiled  ## make .venv and install what nao_ray runs on

# -- use ---------------------------------------------------------------------------------------------------

search: $(VENV)/.compiled  ## run the main job; another one with CONFIG=my.yaml or CONFIG=<preset>
	$(BIN)/python jobs/search.py $(CONFIG)

smoke: $(VENV)/.compiled  ## a whole search on made-up images, in seconds
	$(BIN)/python jobs/search.py smoke --pool "$$(mktemp -d)/smoke"

bench: $(VENV)/.compiled  ## the measurements that the README quotes (long; on an idle machine)
	$(BIN)/nao-ray bench all

cluster-up: $(VENV)/.compiled  ## a Ray on this machine that stays up, for jobs
	PATH="$(abspath $(BIN)):$$PATH" bash cluster/machine.sh up

cluster-down:  ## end it
	bash cluster/machine.sh down

# -- development -------------------------------------------------------------------------------------------

test: $(VENV)/.installed-dev  ## all tests but the slow and the Ray ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist loadscope -m "not ray and not slow"

test-ray: $(VENV)/.installed-dev  ## the tests that start a local Ray, and the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist loadscope -m "ray or slow"

test-gpu: $(VENV)/.installed-dev  ## what needs a CUDA device, in 8 minutes: tests, a child's step, a search; one table
	PYTHON=$(BIN)/python bash tests/gpu/all.sh

# Two processes more than cores, for those with a Ray wait, among the others (tests/conftest.py). With one more the cores
# stood idle for a twelfth of the time.
test-all: $(VENV)/.installed-dev  ## both in one run, which takes less
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $$(($(CORES) + 2)) --dist loadscope --no-loadscope-reorder

format: $(VENV)/.installed-dev  ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.installed-dev  ## ruff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: $(VENV)/.installed-dev  ## mypy, strict
	$(BIN)/mypy

# Not part of `check`: it asks PyPI's JSON API, which mirrors lack. --strict, for else a package that it cannot look up
# counts as sound.
audit: $(VENV)/.installed  ## known vulnerabilities of the pinned packages; needs the Internet
	$(BIN)/python -m pip install --quiet pip-audit==2.10.1
	$(BIN)/pip-audit --strict --no-deps --disable-pip -r requirements.txt

# Beside lint and type, which keep one core busy, all that the tests load is compiled, by collecting them.
check: $(VENV)/.installed-dev  ## what CI runs: lint, type, test-all, and how long each took
	@set -e; $(BIN)/python -m pytest --collect-only -q >/dev/null 2>&1 & compiling=$$!; \
	for step in lint type test-all; do \
		if [ $$step = test-all ]; then wait $$compiling || true; fi; \
		start=$$(date +%s); echo "== make $$step"; $(MAKE) --no-print-directory $$step; \
		echo "== make $$step: $$(($$(date +%s) - start)) s"; done

clean:  ## remove caches and .venv; pools stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
