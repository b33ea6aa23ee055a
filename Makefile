# Everything happens in a virtual environment inside the checkout.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format guests bench clean

demo: $(VENV)/.installed
	@$(BIN)/worldswitch demo

test: $(VENV)/.installed-dev
	@$(BIN)/pytest

check: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

guests: $(VENV)/.installed
	@$(BIN)/python -m worldswitch.guests.build

bench: $(VENV)/.installed-dev
	@$(BIN)/python benchmarks/concrete.py

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit("worldswitch needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || { echo "creating the virtual environment failed (on Debian: install python3-venv)" >&2; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	@rm -rf $(VENV)
