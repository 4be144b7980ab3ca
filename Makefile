# `make` or `make help` lists the targets. Needs Python 3.11 or newer with venv and pip; everything else it installs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP = $(BIN)/pip install --quiet --disable-pip-version-check
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 20

run: $(VENV)/run ## start the bridge in development, send it one signed webhook of each provider, show the events
	@$(BIN)/bridge dev --try

test: $(VENV)/dev ## run the tests
	@$(BIN)/pytest

lint: $(VENV)/dev ## formatting, lint, types, and which module may import which
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev ## measure, about half an hour: tables, plots and raw figures into docs/bench
	@PYTHONPATH=tests $(BIN)/python -m bench measure

chaos: $(VENV)/dev ## break a running bridge in every known way, about 35 minutes: what is lost, into docs/chaos (for less: ROUNDS=20 SEED=7)
	@PYTHONPATH=tests $(BIN)/python -m chaos --rounds $(ROUNDS) $(SEED:%=--seed %) $(if $(filter 200,$(ROUNDS)),--into docs/chaos)
ROUNDS := 200

fuzz: $(VENV)/fuzz ## look for a minute for requests that break what verification promises (Linux)
	@$(BIN)/pytest --quiet tests/test_fuzz_engine.py
	@$(BIN)/python -m fuzz run

check-deploy: $(VENV)/deploy ## check what is in deploy/ with the tools it is for (Debian, as root; deploy/checks/install has them)
	@$(BIN)/pytest --timeout 900 deploy/checks

lock: $(VENV)/dev ## make the lock files anew from pyproject.toml
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile $(LOCK) --group build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile $(LOCK) --group build --group image --extra traces pyproject.toml -c requirements.lock -o requirements-image.lock
	$(BIN)/uv pip compile $(LOCK) --group build --group dev --extra traces pyproject.toml -c requirements-image.lock -c requirements.lock -o requirements-dev.lock
	$(BIN)/uv pip compile $(LOCK) --group fuzz -o requirements-fuzz.lock
	$(BIN)/uv pip compile $(LOCK) --group deploy -c requirements-dev.lock -o requirements-deploy.lock
LOCK := --quiet --universal --generate-hashes --no-header --python-version 3.11 --upgrade

clean: ## remove what the others made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .fuzz .deploy
	rm -f bridge-dev.db bridge-dev.db-*
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	@echo "Installing into $(VENV): about half a minute, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.lock
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/fuzz: $(VENV)/dev requirements-fuzz.lock
	@$(PIP) --require-hashes -r requirements-fuzz.lock
	@touch $@

$(VENV)/deploy: $(VENV)/dev requirements-deploy.lock
	@$(PIP) --require-hashes -r requirements-deploy.lock
	@touch $@

.PHONY: help run test lint bench chaos fuzz check-deploy lock clean
