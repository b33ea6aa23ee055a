# Everything happens in a virtual environment inside the checkout, made when first needed and again when pyproject.toml changes.
#   make demo ARGS="--cpu amd"      make test ARGS="tests/host -k tick"      make PYTHON=/usr/bin/python3.12 test
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check format guests bench clean FORCE

VENV := .venv
BIN := $(VENV)/bin
CODE := src tests $(wildcard benchmarks)
BENCHMARKS = $(filter-out %/__init__.py,$(wildcard benchmarks/*.py))
ARGS ?=
# The first that runs and is new enough; a name on PATH alone says little (version managers put stand-ins there).
PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# An environment whose interpreter is gone, or that was made for a checkout elsewhere (paths are written into it), is made anew.
USABLE := $(shell test -x $(BIN)/python && test "$$(cat $(VENV)/.created 2>/dev/null)" = "$(CURDIR)" && echo yes)

help:
	@echo "make demo     run the demonstration"
	@echo "make test     run the tests"
	@echo "make check    lint, formatting, types"
	@echo "make format   mend what lint and formatting can mend by themselves"
	@echo "make guests   assemble the guest programs again (needs binutils)"
	@echo "make bench    run the benchmarks"
	@echo "make clean    remove $(VENV) and the tools' caches"

demo: $(VENV)/.installed
	@$(BIN)/worldswitch demo $(ARGS)

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(CODE)

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

guests: $(VENV)/.installed
	@$(BIN)/python -m worldswitch.guests.build $(ARGS)

bench: $(VENV)/.installed-dev
	@test -n "$(BENCHMARKS)" || { echo "there is no benchmark in benchmarks/" >&2; exit 1; }
	@set -e; for benchmark in $(BENCHMARKS); do $(BIN)/python $$benchmark $(ARGS); done

clean:
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.created: $(if $(USABLE),,FORCE)
	@test -n "$(PYTHON)" || { echo "worldswitch needs Python 3.11 or newer, and neither python3.11 nor python3 is one;" \
		"name one: make PYTHON=/path/to/python ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "worldswitch needs Python 3.11 or newer, this is " + sys.version)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments with pip in them" \
		"(its module ensurepip or venv is missing); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "setting up $(VENV) ..." >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@printf '%s' "$(CURDIR)" > $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed
