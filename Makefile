# Countersign. Needs make and Python 3.11 or newer; what it installs goes into .venv and tests/counterparts/node_modules.

PY ?= python3
WORKERS ?= 2
ARGS ?=
BIN := .venv/bin
UV := $(BIN)/uv

.DEFAULT_GOAL := help
.PHONY: help install dev run demo test faults check lock clean counterparts
.DELETE_ON_ERROR:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo "Settings: PY=python3.12  COUNTERSIGN_PORT=8501  WORKERS=2  ARGS='-k word'  CHROMIUM=/path"

install: .venv/.runtime ## Install what the product needs into .venv

dev: .venv/.dev ## Install what tests and checks need as well

run: install ## Start the console with demo data; the port is COUNTERSIGN_PORT, else 8501
	@$(BIN)/countersign serve --demo

demo: run ## The same as run

test: dev counterparts ## Run every test (a browser and a model server are installed first)
	@CHROMIUM=$$(sh tests/browser/chromium.sh) && export CHROMIUM && $(SCRATCH) && $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

faults: dev counterparts ## Try every fault of models and receivers, every pair of crash points, long outages: hours
	@$(SCRATCH) && $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "long or integration" $(ARGS)
	@$(BIN)/countersign bench --only delay

check: dev ## Lint, format, types, imports, and that the migrations match the tables
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m storage.migrations.check

lock: .venv/.uv ## Resolve requirements*.in and package.json again (newest versions: UPGRADE=--upgrade)
	@test -x $(UV) || { echo "make lock needs uv, and none could be installed" >&2; exit 1; }
	$(COMPILE) requirements-uv.in -o requirements-uv.lock
	$(COMPILE) requirements.in -o requirements.lock
	$(COMPILE) requirements-dev.in -o requirements-dev.lock
	sh tests/counterparts/node.sh lock

clean: ## Remove what was installed and cached; data in var/ stays
	rm -rf .venv build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis tests/counterparts/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

counterparts: dev
	@sh tests/counterparts/node.sh install

# The tests make hundreds of databases, each synced at every commit: in memory where there are 2 GB of it to spare.
SCRATCH = if [ -z "$$TMPDIR" ] && [ "$$(df -k /dev/shm 2>/dev/null | awk 'END {print $$4}')" -gt 2000000 ] 2>/dev/null; \
	then TMPDIR=/dev/shm && export TMPDIR; fi

# No --emit-index-*: a lock names no host, so it serves behind any mirror.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile -q $(UPGRADE) --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links

# $(call pip,arguments): with uv where there is one, else with pip. Both check the hashes.
pip = if [ -x $(UV) ]; then VIRTUAL_ENV=.venv $(UV) pip install -q $(1); else $(BIN)/python -m pip install -q $(1); fi

.venv/.uv: requirements-uv.lock
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Countersign needs Python 3.11 or newer. If you have one under another name: make PY=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PY) -m venv --clear .venv >/dev/null || { rm -rf .venv; \
		echo "No virtual environment could be made. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r $< || echo "uv is not to be had here: pip does the work"
	@touch $@

.venv/.runtime: requirements.lock requirements.in pyproject.toml .venv/.uv
	@echo "Installing into .venv"
	@$(call pip,--require-hashes -r requirements.lock)
	@$(call pip,--no-deps --no-build-isolation -e .)
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	@echo "Installing what tests need"
	@$(call pip,--require-hashes -r requirements-dev.lock)
	@touch $@
