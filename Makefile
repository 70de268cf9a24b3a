# make demo    draw one prompt, look at it, say what is wrong and mend it, with an embedded model
# make test    lint, types, tests, and the page's tests
# make wheel   build a wheel, install it outside of the tree, and use it
# make setup   the virtual environment in .venv; the other targets call it, and it is quick when up to date

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PAGE := .venv-page
PAGE_STAMP := $(PAGE)/.installed
PROMPT ?= a purple ring above an orange cross, and a white heart right of the cross

# Threads that wait must sleep: on a busy machine spinning ones cost more than the work itself.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-page lint wheel

help:
	@sed -n 's/^# make /make /p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "setup: installing into .venv (minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $(STAMP)

# gradio wants an older Pillow than the pixels of DeepSeek's processor were recorded with. So it has an environment of
# its own, which sees .venv's packages behind its few.
$(PAGE_STAMP): $(STAMP) constraints-page.txt
	@echo "setup: gradio with its Pillow into $(PAGE)"
	@test -x $(PAGE)/bin/python || $(BIN)/python -m venv $(PAGE)
	@$(BIN)/python -c 'import os, site; print(site.getsitepackages()[0], os.path.abspath("src"), sep="\n")' \
		> "$$($(PAGE)/bin/python -c 'import site; print(site.getsitepackages()[0])')/behind.pth"
	@$(PAGE)/bin/python -m pip install -q -c constraints-page.txt 'gradio[mcp]' pillow
	@touch $(PAGE_STAMP)

demo: $(STAMP)
	@echo 'demo: drawing "$(PROMPT)" into outputs/demo'
	@$(BIN)/janus-r1 generate "$(PROMPT)" --model tiny-repair --samples 4 --rounds 4 \
		--temperature 0.7 --repair-from best --final best --out outputs/demo --overwrite
	@echo "demo: open outputs/demo/sheet.png"

lint: $(STAMP)
	@echo "lint: ruff, mypy"
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check -q src tests benchmarks
	@$(BIN)/mypy

test: lint
	@echo "test: pytest"
	@$(BIN)/python -m pytest -q
	@$(MAKE) --no-print-directory test-page

test-page: $(PAGE_STAMP)
	@echo "test: the page, with gradio and, where there is Chromium, in a browser"
	@$(PAGE)/bin/python -m pytest -q tests/test_serve_page.py

wheel: $(STAMP)
	@echo "wheel: built, installed and used in a temporary folder"
	@$(BIN)/python tests/wheel.py
