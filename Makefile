# Thin: each target creates .venv first when it is missing.
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"    a CPU build of torch
PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile
BENCH_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test up check audit bench chaos

demo: $(VENV)/local.stamp
	$(BIN)/embedmill demo

up: $(VENV)/local.stamp
	$(BIN)/embedmill up

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(PYTEST_ARGS)

audit: $(VENV)/dev.stamp
	$(BIN)/python -m tests.advisories

bench: $(VENV)/dev.stamp
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

chaos: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m chaos -s tests/acceptance/chaos

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/local.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) --editable '.[local]'
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) --editable '.[dev]'
	touch $@ $(VENV)/local.stamp
