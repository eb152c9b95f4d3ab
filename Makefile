# make demo     a logged Hopper dataset becomes a better policy, in a few minutes on a laptop
# make test     the test suite
# make lint     ruff and pyright
# make docs     the documentation site into build/site, warnings as errors; open build/site/index.html
# make lowest   the quick tests with the lowest versions that pyproject.toml allows, in an environment of their own
# make bench    how fast training is here, next to the machine's limit and other libraries: under 15 minutes on two cores
# make soak     kills, disks, damaged files, numbers, time and downloads: an hour; `make soak SOAK=short` in minutes
# make lock     resolve the locked versions again; `make lock UPGRADE=--upgrade` takes the newest ones
# make clean    remove what this file made; runs/ is kept
#
# Each target prepares .venv first, from the locked versions. Nothing but Python and make is needed.

DEMO := itrpo train hopper-demo --algorithm itrpo --scale laptop --out runs/demo

# The first Python of this list that is recent enough and can create environments; `make test PYTHON=...` picks another.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
CAN_CREATE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON = $(shell for p in $(PYTHONS); do $$p -c '$(CAN_CREATE)' 2>/dev/null && { echo $$p; break; }; done)

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
COMPILE := $(BIN)/uv pip compile --quiet --no-config --system-certs --universal --python-version 3.11 --fork-strategy fewest \
	--only-binary :all: --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make lock' $(UPGRADE)
LOCK := $(COMPILE) pyproject.toml --group build --extra test

unexport PYTHONPATH PYTHONHOME

.PHONY: demo test lint docs lowest bench soak lock clean

demo: .venv/installed
	$(BIN)/$(DEMO)

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: .venv/dev-versions .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pyright --project benchmarks

docs: .venv/docs-versions .venv/installed
	NO_MKDOCS_2_WARNING=1 JAX_PLATFORMS=cpu $(BIN)/python -m mkdocs build --strict

# Python 3.11, for which the lowest versions have wheels. LOWEST_TESTS: what neither takes minutes nor needs newer tools.
LOWEST_TESTS := tests/algorithms tests/behavior tests/data tests/nn tests/ops tests/ope tests/shipping tests/theory tests/cli tests/test_policy.py tests/test_package.py
lowest: .venv/dev-versions
	$(BIN)/uv venv --quiet --no-config --clear build/lowest
	$(BIN)/uv pip install --quiet --no-config --system-certs --python build/lowest/bin/python --resolution lowest-direct '.[test]'
	build/lowest/bin/python -m pytest --numprocesses auto --dist loadfile $(LOWEST_TESTS)

# BENCH='--python PEER/bin/python' adds d3rlpy; `benchmarks/bench.py --help` lists what else there is.
bench: .venv/installed
	$(BIN)/python benchmarks/bench.py $(BENCH)

# What it found, and what it is: docs/reliability.md. GROUPS='kills disk' takes some; SEED repeats a failure.
SEED := 0
soak: .venv/installed
	$(BIN)/python -m benchmarks.soak $(GROUPS) --seed $(SEED) $(if $(filter short,$(SOAK)),--short)

lock: .venv/dev-versions
	$(LOCK) --output-file requirements.lock
	$(LOCK) --extra dev --constraint requirements.lock --output-file requirements-dev.lock
	$(COMPILE) --group pyproject.toml:docs --constraint requirements-dev.lock --output-file requirements-docs.lock

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache
	find itrpo tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Editable, so that a change of the code needs no reinstallation; the files named here hold the metadata.
.venv/installed: .venv/versions pyproject.toml itrpo/__init__.py
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/versions: requirements.lock | .venv/created
	@echo "Installing the locked versions into .venv (once, a few hundred megabytes)"
	@$(PIP) install --require-hashes --only-binary :all: --requirement requirements.lock
	@touch $@

.venv/dev-versions: requirements-dev.lock | .venv/versions
	@echo "Installing the developer tools into .venv"
	@$(PIP) install --require-hashes --only-binary :all: --requirement requirements-dev.lock
	@touch $@

.venv/docs-versions: requirements-docs.lock | .venv/versions
	@echo "Installing what builds the documentation into .venv"
	@$(PIP) install --require-hashes --only-binary :all: --requirement requirements-docs.lock
	@touch $@

.venv/created:
	@python='$(PYTHON)'; \
	if ! "$$python" -c '$(CAN_CREATE)' 2>/dev/null; then \
		echo "itrpo needs Python 3.11, 3.12, 3.13 or 3.14 with the modules venv and ensurepip: none found$(if $(PYTHON), in $(PYTHON))." >&2; \
		echo "Install one (on Debian and Ubuntu also the package python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	echo "Creating .venv with $$python ($$("$$python" --version))"; \
	"$$python" -m venv --clear .venv
	@touch $@
