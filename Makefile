# make demo    a real study from end to end, through blocks that die at their walltime
# make demo-atlas  fifteen GANs on calorimeter showers in one study; installs PyTorch
# make test    the tests (make test-slow: the long ones; make test-batch: on batch systems;
#              make test-ppc64le: with workers on an emulated ppc64le)
# make lint    ruff and mypy
# make extras  all optional packages too, so that no test of them is skipped
# make clean   remove the virtual environment and everything made by these
#
# Needs Python >= 3.10 with venv, and the network once, for the installation.
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
DEMO ?= build/demo
DEMO_ATLAS ?= build/demo-atlas
PYTEST_ARGS ?=

BIN := $(VENV)/bin
JOB := jobs/digits
ATLAS := jobs/fastcalogan
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo demo-atlas test test-slow test-batch test-ppc64le lint extras clean
.DELETE_ON_ERROR:

# A fresh study folder each time: an old one would only be found finished.
demo: $(VENV)/.installed
	rm -rf "$(DEMO)"
	mkdir -p "$(dir $(DEMO))"
	$(BIN)/python $(JOB)/make_data.py
	$(BIN)/hpc-hpo prestage $(JOB)/study.yaml --dir "$(DEMO)"
	$(BIN)/hpc-hpo run $(JOB)/study.yaml --dir "$(DEMO)"
	@echo
	@$(BIN)/python $(JOB)/final_test.py "$(DEMO)"

# Its showers have a folder of their own: the real files may lie in data/.
demo-atlas: $(VENV)/.installed-torch
	rm -rf "$(DEMO_ATLAS)"
	mkdir -p "$(dir $(DEMO_ATLAS))"
	$(BIN)/python $(ATLAS)/make_data.py --folder $(ATLAS)/data/demo --events 1000 --momenta 8192 32768 131072
	$(BIN)/hpc-hpo prestage $(ATLAS)/demo.yaml --dir "$(DEMO_ATLAS)"
	$(BIN)/hpc-hpo run $(ATLAS)/demo.yaml --dir "$(DEMO_ATLAS)"
	@echo
	@$(BIN)/python $(ATLAS)/best_points.py "$(DEMO_ATLAS)" $(ATLAS)/study.yaml

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "slow and not batch and not ppc64le" $(PYTEST_ARGS)

test-batch: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m batch $(PYTEST_ARGS)

test-ppc64le: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m ppc64le $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

extras: $(VENV)/.installed-extras $(VENV)/mlflow/.installed

clean:
	rm -rf "$(VENV)" build dist hpc_hpo.egg-info $(JOB)/data $(ATLAS)/data/demo
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each installation is done once, and again when what it is made from has changed.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python >= 3.10 is needed; name one with: make PYTHON=...")'
	$(PYTHON) -m venv "$(VENV)"
	@touch $@

$(VENV)/.installed: $(VENV)/.made setup.cfg pyproject.toml
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.made setup.cfg pyproject.toml
	$(PIP) install --quiet --editable '.[test]'
	@touch $@

$(VENV)/.installed-torch: $(VENV)/.made setup.cfg pyproject.toml
	$(PIP) install --quiet --editable '.[torch]'
	@touch $@

# MLflow's pages need the whole of it, which brings an older pyarrow: in an environment of its own.
$(VENV)/mlflow/.installed: $(VENV)/.installed-extras
	$(PYTHON) -m venv "$(VENV)/mlflow"
	$(VENV)/mlflow/bin/python -m pip --disable-pip-version-check install --quiet \
	    "mlflow==$$($(BIN)/python -c 'from importlib.metadata import version; print(version("mlflow-skinny"))')"
	@touch $@

$(VENV)/.installed-extras: $(VENV)/.installed-torch
	$(PIP) install --quiet --editable '.[test,torch,optuna,dashboard,nevergrad,zstd,pandas,parquet,mlflow]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made setup.cfg pyproject.toml
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@
