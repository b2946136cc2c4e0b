# `make demo` and `make test` do everything on a fresh machine: python3 and pip are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check set-up clean

# Installs once, and again whenever what is to be installed has changed.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet \
		--disable-pip-version-check -e ".[demo,dev,tensorboard,web]"
	touch $@

set-up: $(VENV)/.ready

demo: set-up
	BIN=$(BIN) sh runs/demo.sh

test: set-up
	$(BIN)/python -m pytest

check: set-up
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs/demo
