# Every target makes the virtual environment it needs by itself: the exact versions of requirements.lock, checked by hash.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA_DIR ?= .data
BIND ?= 127.0.0.1:4390
PYTEST_ARGS ?= -n auto

.DEFAULT_GOAL := help
.PHONY: help install serve test check format lint types contracts lock clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "conclave needs Python 3.11 or later; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

install: $(STAMP) ## Create .venv with the locked dependencies; then .venv/bin/conclave works

serve: $(STAMP) ## Run a durable relay on ws://127.0.0.1:4390 (BIND=, DATA_DIR=)
	@$(BIN)/conclave serve --bind $(BIND) --data-dir $(DATA_DIR)

test: $(STAMP) ## Run the whole test suite (PYTEST_ARGS=)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint types contracts ## Everything a submission must pass: format, lint, types, imports, tests with coverage
	$(MAKE) --no-print-directory test PYTEST_ARGS="--cov --cov-report=term $(PYTEST_ARGS)"

format: $(STAMP) ## Rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP) ## Check format and lint rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) ## Check types, tests included
	$(BIN)/mypy

contracts: $(STAMP) ## Check which package may import which
	$(BIN)/lint-imports --no-cache

lock: $(STAMP) ## Resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --group dev \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
	  --custom-compile-command "make lock" --upgrade --output-file requirements.lock pyproject.toml

clean: ## Remove what the other targets made, except the relay's data
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* build dist
