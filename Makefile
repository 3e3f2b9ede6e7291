# Sets up .venv by itself; needs a Python of 3.12 or newer (with venv), or uv.
.DEFAULT_GOAL := help
.PHONY: help demo demo-begins test channels check docs pictures dist format clean chaos bench fuzz siege soak lowest lock audit

VENV := .venv
BIN := $(VENV)/bin
# A shell function: runs a quiet command, and says every few seconds that it is still at work.
EVERY := 5
PATIENTLY := patiently() { \
		( seconds=0; while sleep $(EVERY) >/dev/null; do seconds=$$((seconds + $(EVERY))); echo "  still at it, $$seconds s"; done ) & ticker=$$!; \
		trap 'kill $$ticker' EXIT; trap 'exit 130' INT TERM; \
		"$$@"; \
	}; patiently

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
	@echo "installing what it needs into $(VENV) (half a minute to two minutes)"
	@$(PATIENTLY) $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@if [ -n "$(LOCKED)" ]; then \
		$(PATIENTLY) $(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.lock && \
		$(BIN)/python -m pip install --quiet --no-deps --editable .; \
	else \
		$(PATIENTLY) $(BIN)/python -m pip install --quiet --editable . --group dev; \
	fi
	@touch $@

demo-begins:
	@if [ $(VENV)/.ready -nt pyproject.toml ]; then echo "The demo takes about half a minute."; \
	else echo "The first time, the demo takes one to three minutes: it sets up $(VENV)."; fi

demo: demo-begins $(VENV)/.ready ## Show the main job at work: reminders, a tick, a live gateway, the messages, the log
	@$(BIN)/python examples/demo/demo.py

$(VENV)/channels/.ready: $(VENV)/.ready
	@echo "installing the channels that tests/neighbours/ tries"
	@$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/channels --group channels
	@touch $@

channels: $(VENV)/channels/.ready ## Install the real channels for tests/neighbours/, apart from all else

test: $(VENV)/.ready $(VENV)/channels/.ready ## Run all tests (THOROUGH=1: with more examples, and more ways to stop)
	@$(BIN)/python -m pytest -q -n 4 --dist worksteal

chaos: $(VENV)/.ready ## Kill ticks and gateways at random, let neighbours misbehave, and hold the books to account (20 minutes)
	@$(BIN)/python tests/chaos.py
	@$(BIN)/python tests/chaos_neighbours.py
	@$(BIN)/python tests/ground_chaos.py

bench: $(VENV)/.ready ## Measure what it costs, and print the table of benchmarks/README.md (half an hour)
	@$(BIN)/python -m benchmarks

RUNS := 1000000
FUZZ := build/fuzz/bin/python

fuzz: $(VENV)/.ready ## Fuzz the parsers, guided by coverage: RUNS inputs each (atheris, in build/fuzz)
	@test -x $(FUZZ) || $(BIN)/python -m venv build/fuzz
	@$(FUZZ) -m pip install --quiet atheris croniter holidays icalendar python-dateutil PyYAML recurring-ical-events tzdata
	@for target in requests schedules reminders; do nice $(FUZZ) tests/fuzz/run.py $$target --runs $(RUNS) || exit; done

SIEGE := PYTHONPATH=tests:examples/demo $(BIN)/python -u tests/siege.py

siege: $(VENV)/.ready ## Attack a live gateway: 1,000 callers, no descriptors left, 100 MiB of all sorts
	@$(SIEGE) attacks

soak: $(VENV)/.ready ## Run 100,000 firings through a live gateway and watch its memory and descriptors
	@$(SIEGE) soak --firings 100000

LOWEST := build/lowest/bin
SLOW := gateway crashes chaos chaos_neighbours ground_chaos systemd debian_cron disks attacks install readme benchmarks examples ssh_example

lowest: $(VENV)/.ready ## Run the unit tests with the lowest versions that pyproject.toml allows (uv, in build/lowest)
	@$(BIN)/python -m venv build/lowest
	@$(LOWEST)/python -m pip install --quiet uv
	@$(LOWEST)/uv pip compile --quiet --python $(LOWEST)/python --resolution lowest-direct pyproject.toml -o build/lowest.txt
	@$(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --requirement build/lowest.txt --group dev
	@$(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --no-deps --editable .
	@$(LOWEST)/python -m pytest -q -n 4 $(SLOW:%=--ignore=tests/test_%.py) --ignore=tests/neighbours

build/tools/bin/uv:
	@$(BIN)/python -m venv build/tools
	@build/tools/bin/python -m pip install --quiet uv pip-audit

lock: $(VENV)/.ready build/tools/bin/uv ## Write requirements-dev.lock anew; `make check LOCKED=1` in a fresh clone uses it
	@UV_CUSTOM_COMPILE_COMMAND="make lock" build/tools/bin/uv pip compile --quiet --upgrade --python $(BIN)/python \
		--python-version 3.12 --universal --generate-hashes --group dev pyproject.toml -o requirements-dev.lock

audit: $(VENV)/.ready build/tools/bin/uv ## Ask PyPI for advisories about what requirements-dev.lock holds
	@build/tools/bin/pip-audit --strict --requirement requirements-dev.lock --no-deps --disable-pip

check: $(VENV)/.ready ## Lint, check types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

docs: $(VENV)/.ready ## Write docs/states.md from the tables of states
	@$(BIN)/python docs/make_states.py

pictures: $(VENV)/.ready ## Write docs/pictures/ anew, from what the commands print
	@$(BIN)/python docs/make_pictures.py docs/pictures

build/dist/.ready: $(VENV)/.ready
	@$(BIN)/python -m venv build/dist
	@build/dist/bin/python -m pip install --quiet build twine
	@touch $@

dist: build/dist/.ready ## Build wheel and sdist into dist/, and check them
	@rm -rf dist
	@build/dist/bin/python -m build --outdir dist .
	@build/dist/bin/twine check --strict dist/*

format: $(VENV)/.ready ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
