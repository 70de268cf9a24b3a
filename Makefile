# make demo    draw, judge and redraw one prompt with the embedded model
# make test    lint, types, tests
# make wheel   build a wheel, install it outside of the tree, and use it
# make setup   the virtual environment in .venv; the other targets call it, and it is quick when up to date

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PROMPT ?= a red circle left of a blue square

# Threads that wait must sleep: on a busy machine spinning ones cost more than the work itself.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint wheel

help:
	@sed -n 's/^# make /make /p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "setup: installing into .venv (minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $(STAMP)

demo: $(STAMP)
	@echo 'demo: drawing "$(PROMPT)" into outputs/demo'
	@$(BIN)/janus-r1 generate "$(PROMPT)" --out outputs/demo --overwrite
	@echo "demo: open outputs/demo/sheet.png"

lint: $(STAMP)
	@echo "lint: ruff, mypy"
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check -q src tests benchmarks
	@$(BIN)/mypy

test: lint
	@echo "test: pytest"
	@$(BIN)/python -m pytest -q

wheel: $(STAMP)
	@echo "wheel: built, installed and used in a temporary folder"
	@$(BIN)/python tests/wheel.py
