# Every target installs what it needs into one virtual environment: the exact versions of the lock files, checked by hash.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What is installed: enough for a relay and its clients; everything for development; more for fuzzing and for deploy/.
SERVE := $(VENV)/.serve
STAMP := $(VENV)/.installed
FUZZ := $(VENV)/.fuzz
DEPLOY := $(VENV)/.deploy
DATA_DIR ?= .data
BIND ?= 127.0.0.1:4390
NODES ?= 3
PYTEST_ARGS ?= -n auto --dist worksteal
SECONDS ?= 60
# The seed and the topology of `make chaos`: a seed at random, and one server.
SEED ?=
TOPOLOGY ?=
# What `make bench` measures, in which size (smoke or full), and against which other tree of this project.
SCENARIOS ?=
SCALE ?= full
TREE ?=
# How long the trials are: short, or full for some hours.
TRIALS ?= short
# What `make serve` installs: a node with its own store, and the command line for talking to it.
SERVE_EXTRAS := --extra client --extra standalone
# What the image installs: a node, and the command line for looking at it.
IMAGE_EXTRAS := --extra client --extra server --extra otel
# Programs for `make deploy-test` that are no Python packages; shared by all checkouts of this user.
TOOLS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/conclave/tools

# The tests start the program hundreds of times: without compiled code on disk, each start compiles it anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install serve cluster test trials chaos fuzz bench mutants check format lint types contracts docs lock clean \
  deploy-tools deploy-test deploy-files kube-test

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

INSTALLER := tools/install.py requirements-uv.lock pyproject.toml conformance/pyproject.toml

define install # the locks among the prerequisites, and $(1)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "conclave needs Python 3.11 or later; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) tools/install.py $(VENV) $(filter %.lock,$(filter-out $(INSTALLER),$^)) $(1)
	@touch $@
endef

$(SERVE): requirements-serve.lock $(INSTALLER)
	$(call install,--project .)

$(STAMP): requirements.lock $(INSTALLER)
	$(call install,--project . --project conformance)

$(FUZZ): requirements.lock requirements-fuzz.lock $(INSTALLER)
	$(call install,--project . --project conformance)

$(DEPLOY): requirements.lock requirements-deploy.lock $(INSTALLER)
	$(call install,--project . --project conformance)

install: $(STAMP) ## Create .venv with the locked dependencies; then .venv/bin/conclave works

serve: $(SERVE) ## Run a durable relay on ws://127.0.0.1:4390 (BIND=, DATA_DIR=)
	@$(BIN)/conclave serve --bind $(BIND) --data-dir $(DATA_DIR)

cluster: $(SERVE) ## Run three relay nodes, their store and a balancer on ws://127.0.0.1:4390 (NODES=, BIND=, DATA_DIR=)
	@$(BIN)/conclave cluster --nodes $(NODES) --bind $(BIND) --data-dir $(DATA_DIR)

test: $(STAMP) ## Run the whole test suite (PYTEST_ARGS=)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

trials: $(STAMP) ## Run the trials: faults, races, attacks, properties, fuzzing (TRIALS=full for hours, SECONDS= for fuzzing)
	TRIALS=$(TRIALS) $(BIN)/python -m pytest $(PYTEST_ARGS) -m "trial or long or hypothesis" \
	  -o timeout=$(if $(filter full,$(TRIALS)),0,600)
	$(MAKE) --no-print-directory fuzz SECONDS=$(if $(filter file,$(origin SECONDS)),10,$(SECONDS))

chaos: $(STAMP) ## Break nodes, store and network at random while clients talk (SECONDS=, SEED=, TOPOLOGY=)
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(TOPOLOGY),--topology $(TOPOLOGY))

fuzz: $(FUZZ) ## Fuzz what decodes the network (SECONDS= for each target, Linux only)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

bench: $(STAMP) ## Measure what a message costs, against floors and others (SCENARIOS=, SCALE=smoke, TREE=; Linux only)
	@$(BIN)/python -m bench.load --scale $(SCALE) $(if $(TREE),--tree $(TREE)) $(SCENARIOS)

mutants: $(STAMP) ## Break the code in the places of tests/mutants/table.py and see tests fail each time
	$(BIN)/python -m tests.mutants

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

docs: $(STAMP) ## Write what the documentation takes from the code: the table of metrics, the recording in README
	$(BIN)/python -m relay.observability.metrics docs/operations.md
	$(BIN)/python -m tests.docs.recording

deploy-tools: $(DEPLOY) ## Install what deploy-test needs: helm, promtool, prometheus, alertmanager, haproxy
	@.ci/deploy-tools "$(TOOLS)"

deploy-test: deploy-tools ## Test all of deploy/: image, chart, alerts, dashboards
	PATH="$(TOOLS)/bin:$$PATH" CRDS="$(TOOLS)/crds" $(BIN)/python -m pytest $(PYTEST_ARGS) tests/deploy

kube-test: deploy-tools ## Test the chart on a real API server of Kubernetes, which is built once (half an hour)
	@.ci/kube-tools "$(TOOLS)"
	PATH="$(TOOLS)/bin:$$PATH" CRDS="$(TOOLS)/crds" $(BIN)/python -m pytest tests/kube

deploy-files: $(DEPLOY) ## Write what is generated in deploy/: dashboards, the chart's copies and tables
	$(BIN)/python -m deploy.generate

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-annotate --custom-compile-command "make lock"

lock: $(STAMP) ## Resolve pyproject.toml anew into the lock files
	$(COMPILE) --all-extras --group dev --upgrade --output-file requirements.lock pyproject.toml
	$(COMPILE) $(SERVE_EXTRAS) --group install --constraint requirements.lock --output-file requirements-serve.lock pyproject.toml
	$(COMPILE) --group uv --constraint requirements.lock --output-file requirements-uv.lock
	$(COMPILE) --group fuzz --upgrade --constraint requirements.lock --output-file requirements-fuzz.lock
	$(COMPILE) --group deploy --upgrade --constraint requirements.lock --output-file requirements-deploy.lock
	$(COMPILE) $(IMAGE_EXTRAS) --constraint requirements.lock --output-file deploy/requirements-image.lock pyproject.toml
	$(COMPILE) --group build --constraint requirements.lock --output-file deploy/requirements-build.lock

clean: ## Remove what the other targets made, except the relay's data
	rm -rf $(VENV) .fuzz .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* build dist
