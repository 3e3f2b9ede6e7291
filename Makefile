# Sets up .venv by itself; needs a Python of 3.12 or newer (with venv), or uv.
.DEFAULT_GOAL := help
.PHONY: help demo test check format clean chaos bench

VENV := .venv
BIN := $(VENV)/bin

help: ## Show this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

$(VENV)/.ready: pyproject.toml
	@set -e; \
	rm -rf $(VENV); \
	for candidate in python3.12 python3.13 python3.14 python3; do \
		if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
			echo "setting up $(VENV) with $$($$candidate --version)"; \
			$$candidate -m venv $(VENV); break; \
		fi; \
	done; \
	if [ ! -x $(BIN)/python ] && command -v uv >/dev/null 2>&1; then uv venv --quiet --seed --python '>=3.12' $(VENV); fi; \
	if [ ! -x $(BIN)/python ]; then \
		echo "bub-cron needs Python 3.12 or newer, with venv. Install one of:" >&2; \
		echo "  Debian, Ubuntu:  apt install python3.12 python3.12-venv   (or python3 python3-venv, where that is 3.12 or newer)" >&2; \
		echo "  Fedora:          dnf install python3.12" >&2; \
		echo "  macOS:           brew install python@3.12" >&2; \
		echo "  anywhere:        uv (https://docs.astral.sh/uv), which brings its own" >&2; \
		exit 1; \
	fi
	@echo "installing what it needs (half a minute or so)"
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: $(VENV)/.ready ## Show the main job at work: reminders, a tick, a live gateway, the messages, the log
	@$(BIN)/python examples/demo/demo.py

test: $(VENV)/.ready ## Run all tests
	@$(BIN)/python -m pytest -q -n 3

chaos: $(VENV)/.ready ## Kill ticks and gateways at random for 10 minutes, then hold the books to account
	@$(BIN)/python tests/chaos.py

bench: $(VENV)/.ready ## Measure what it costs, and print the table of benchmarks/README.md (half an hour)
	@$(BIN)/python -m benchmarks

check: $(VENV)/.ready ## Lint, check types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.ready ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove what the other targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
