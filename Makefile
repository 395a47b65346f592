# Stagecoach's everyday verbs. `make demo` and `make test` do their own set-up.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export S3 ?= rgw

.PHONY: help demo portal pictures test test-browser test-nodes check conformance supply-chain vulnerabilities format openapi lock testbed-up testbed-down bench clean

help:
	@echo "make demo          everything on this machine, with a real upload and download (ONCE=1: then stop)"
	@echo "make portal        the libraries of the portal's pages, from npm into the package (Node.js 18 or newer)"
	@echo "make test          all tests, on a testbed with real Slurm, SSH, S3 and PostgreSQL, and in Chromium (root, Debian)"
	@echo "make test-nodes    data transfer nodes: two on the testbed, in networks of their own (root, Debian, /dev/net/tun)"
	@echo "make test-browser  of these the portal's pages in Chromium, without the testbed (root, Debian)"
	@echo "make pictures      the pictures of the portal in docs/pictures anew (as test-browser)"
	@echo "make check         ruff, mypy, import-linter, licences and the unit tests"
	@echo "make supply-chain  licences of all that the service installs (refused unless known to be fit) and its SBOM, in dist/"
	@echo "make vulnerabilities  known ones of all that the service installs (asks PyPI)"
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

# What the pages need from npm goes into the package; a wheel or image that is built afterwards contains it.
VENDOR := src/stagecoach/portal/static/vendor/vendor.json
portal: $(VENDOR)

$(VENDOR): $(addprefix deploy/portal/,package.json package-lock.json vendor.mjs) src/stagecoach/portal/static/upload/size-text.js
	@command -v npm >/dev/null || { echo "npm is needed (Node.js 18 or newer); on Debian: apt-get install --no-install-recommends nodejs npm"; exit 1; }
	cd deploy/portal && npm ci --no-audit && npm run --silent vendor

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory supply-chain
	$(BIN)/python -m pytest tests/unit -q

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory supply-chain
	@VENV=$(abspath $(VENV)) STAGECOACH_REQUIRE_BROWSER=1 deploy/testbed/install
	@$(MAKE) --no-print-directory portal
	@VENV=$(abspath $(VENV)) TESTBED_OF_NODES=1 STAGECOACH_REQUIRE_BROWSER=1 deploy/testbed/run-tests $(BIN)/python -m pytest tests -n 3 --dist loadscope --no-loadscope-reorder $(PYTEST_OPTIONS)

# What needs network namespaces, and the agents with their rclone. Here a machine without them fails; above it skips.
OF_NODES := tests/e2e/nodes tests/integration/agent tests/integration/test_agent.py tests/integration/test_testbed_nodes.py
test-nodes: $(VENV)/.installed-dev
	@VENV=$(abspath $(VENV)) STAGECOACH_REQUIRE_NODES=1 deploy/testbed/run-tests $(BIN)/python -m pytest $(OF_NODES) $(PYTEST_OPTIONS)

# The portal's pages in a real browser, before a service of their own; those before the testbed's are in `make test`.
test-browser: $(VENV)/.installed-dev
	@VENV=$(abspath $(VENV)) STAGECOACH_REQUIRE_BROWSER=1 deploy/testbed/install
	@$(MAKE) --no-print-directory portal
	STAGECOACH_REQUIRE_BROWSER=1 $(BIN)/python -m pytest tests/e2e/portal tests/unit/portal --ignore=tests/e2e/portal/test_cluster.py -n 2 --dist loadscope $(PYTEST_OPTIONS)

pictures: $(VENV)/.installed-dev
	@VENV=$(abspath $(VENV)) STAGECOACH_REQUIRE_BROWSER=1 deploy/testbed/install
	@$(MAKE) --no-print-directory portal
	$(BIN)/python -m tests.e2e.portal.pictures docs/pictures

# Of what is locked for the service; what only tests and builds need is not shipped.
LOCKED = $(shell sed -n 's/^\([A-Za-z0-9_.-]*\)==.*/\1/p' requirements.lock)
# Parts of licences' names. Weak copyleft (MPL, LGPL, EPL) is fit for what is only used; anything new fails until it is read.
FIT_LICENCES = MIT;Apache;BSD;ISC License;Mozilla Public License 2.0;MPL-2.0;LGPL-3.0-only;EPL-2.0;PSF-2.0;Python Software Foundation License
supply-chain: $(VENV)/.installed-dev
	@mkdir -p dist
	@$(BIN)/pip-licenses --from=mixed --order=license --format=csv --with-urls --partial-match --allow-only="$(FIT_LICENCES)" \
		--output-file=dist/licences.csv --packages $(LOCKED) >/dev/null
	@$(BIN)/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/stagecoach.cdx.json
	@echo "licences in dist/licences.csv, SBOM (CycloneDX) in dist/stagecoach.cdx.json"

vulnerabilities: $(VENV)/.installed-dev
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

conformance: $(VENV)/.installed-dev
	$(BIN)/python -m tests.conformance.run
	$(BIN)/python -m tests.conformance.run --admin --examples 150 --least 4000

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
	$(BIN)/python bench/road.py

COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header
# The package itself stands in the result, because `embedded` builds on `server`; it is not to be pinned.
WITHOUT_SELF = sed -i -e '/^\# WARNING: pip install/,/^stagecoach @/d' -e '/^    \# via stagecoach (pyproject.toml)$$/d'
lock: $(VENV)/.installed-dev
	$(COMPILE) --extra embedded --extra build -o requirements.lock pyproject.toml
	$(COMPILE) --extra embedded --extra build --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml
	$(COMPILE) --extra agent --extra build -c requirements.lock -o requirements-agent.lock pyproject.toml
	$(WITHOUT_SELF) requirements.lock requirements-dev.lock requirements-agent.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .demo dist
