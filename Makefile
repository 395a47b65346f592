# Stagecoach's everyday verbs. `make demo` and `make test` do their own set-up.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export S3 ?= rgw

.PHONY: help demo test check format openapi lock testbed-up testbed-down bench clean

help:
	@echo "make demo          everything on this machine, with a real upload and download (ONCE=1: then stop)"
	@echo "make test          all tests, on a testbed with real Slurm, SSH, S3 and PostgreSQL (root, Debian)"
	@echo "make check         ruff, mypy, import-linter and the unit tests"
	@echo "make testbed-up    start the testbed and Stagecoach on it (S3=rgw or S3=rclone); settings in .testbed/env"
	@echo "make testbed-down  stop it"
	@echo "make openapi       write openapi/openapi.json and deploy/settings.example.yaml anew"
	@echo "make bench         measure against peers"
	@echo "make lock          resolve the locked requirements anew"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say make PYTHON=/path/of/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

# The service alone.
$(VENV)/.installed: $(VENV)/.made requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The service and what its tests need.
$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/python deploy/demo.py $(if $(ONCE),--once)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/unit -q

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@VENV=$(abspath $(VENV)) deploy/testbed/run-tests $(BIN)/python -m pytest tests $(PYTEST_OPTIONS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(VENV)/.installed-dev
	$(BIN)/stagecoach openapi > openapi/openapi.json
	$(BIN)/stagecoach settings-example > deploy/settings.example.yaml

testbed-up: $(VENV)/.installed-dev
	@VENV=$(abspath $(VENV)) deploy/testbed/up

testbed-down:
	@VENV=$(abspath $(VENV)) deploy/testbed/down

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/presigning.py
	$(BIN)/python bench/mover.py

COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header
# The package itself stands in the result, because `embedded` builds on `server`; it is not to be pinned.
WITHOUT_SELF = sed -i -e '/^\# WARNING: pip install/,/^stagecoach @/d' -e '/^    \# via stagecoach (pyproject.toml)$$/d'
lock: $(VENV)/.installed-dev
	$(COMPILE) --extra embedded --extra build -o requirements.lock pyproject.toml
	$(COMPILE) --extra embedded --extra build --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(WITHOUT_SELF) requirements.lock requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .demo dist
