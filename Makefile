# `make demo` and `make test` do everything on a fresh machine: python3 and pip are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-offline torture check set-up clean

# Installs once, and again whenever what is to be installed has changed.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet \
		--disable-pip-version-check -e ".[data,demo,dev,onnx,tensorboard,web]"
	touch $@

set-up: $(VENV)/.ready

demo: set-up
	BIN=$(BIN) sh runs/demo.sh

test: set-up
	$(BIN)/python -m pytest -n auto --dist worksteal

# The whole suite where there is no network but loopback (Linux).
test-offline: set-up
	unshare -rn $(BIN)/python tests/loopback.py $(BIN)/python -m pytest -n auto --dist worksteal

# Fifty kills of trainings that go on, 2,000 flipped bits, trouble at every call to the disk, four processes.
torture: set-up
	$(BIN)/python tests/torture.py
	TORTURE=1 $(BIN)/python -m pytest -q tests/test_damage.py tests/test_generate.py \
		tests/test_faults.py tests/test_full_disk.py tests/test_hard_corpora.py \
		tests/test_not_finite.py tests/test_processes.py tests/test_training.py \
		tests/test_export.py tests/test_quality.py tests/test_explorer_kept.py

check: set-up
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs/demo
