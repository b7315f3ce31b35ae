# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Paths are relative throughout, so the tree may live anywhere.

PYTHON ?= python3
VENV ?= .venv
DEMO_SECONDS ?= 15
PYTEST_ARGS ?=
DEMO_ARGS ?=
ENGINE_ARGS ?=
BOARD_ARGS ?=
PY := $(VENV)/bin/python
PORTABLE_PATH := .:shared

# Two targets set up the same environment; running them side by side would race.
.NOTPARALLEL:
.DEFAULT_GOAL := help

.PHONY: help demo engine boards-emulated test test-fast check generate clean

help:
	@echo "make demo       a MicroPython board balances a pole, held by a brain on this machine; prints"
	@echo "                a URL to see it in the browser  (DEMO_SECONDS=600 DEMO_ARGS='--open --control')"
	@echo "make engine     the real FEAGI engine, until Ctrl-C       (ENGINE_ARGS='--genome essential')"
	@echo "make boards-emulated   MicroPython on an emulated Cortex-M3, until Ctrl-C"
	@echo "                (BOARD_ARGS='--program main.py --port ./board')"
	@echo "make test       every test                                (PYTEST_ARGS='-k link' to choose)"
	@echo "make test-fast  what runs in under two minutes"
	@echo "make check      lint, format, types, import rules, portable compile, generated files"
	@echo "make generate   rewrite the generated files"
	@echo "make clean      remove the set-up ($(VENV)) and caches"
	@echo "PYTHON=...      the interpreter to set up with, 3.11 or newer (now: $(PYTHON))"

demo: $(VENV)/.ready-demo
	$(VENV)/bin/feagi-io demo --view --seconds $(DEMO_SECONDS) $(DEMO_ARGS)

# The engine brings its own libraries: an interpreter with pip is all it takes.
engine: $(VENV)/.made
	$(PY) -m tools.engine $(ENGINE_ARGS)

boards-emulated: $(VENV)/.ready-boards
	$(PY) -m tools.emulation $(BOARD_ARGS)

test: $(VENV)/.ready-test
	$(PY) -m pytest $(PYTEST_ARGS)

test-fast: $(VENV)/.ready-test
	$(PY) -m pytest -m "not slow" $(PYTEST_ARGS)

check: $(VENV)/.ready-check
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m tools.check_house
	$(PY) -m tools.check_imports
	$(PY) -m mypy
	PYTHONPATH=$(PORTABLE_PATH) $(VENV)/bin/lint-imports
	$(PY) -m tools.plain_twin --check
	$(PY) -m tools.mip_package --check
	$(PY) -m tools.compile_portable

generate: $(VENV)/.ready-check
	$(PY) -m tools.plain_twin
	$(PY) -m tools.mip_package

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, filled by need: `make demo` does not wait for linters.
$(VENV)/.ready-%: pyproject.toml $(VENV)/.made
	@echo "setting up $(VENV) for '$*' (once)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/.made: tools/make_venv.sh
	@sh tools/make_venv.sh '$(PYTHON)' '$(VENV)'
	@touch $@
