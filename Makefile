# The two commands of the README, and what they stand on. `make help` lists them.
#
#   PYTHON=python3.13                                        another interpreter (3.11 or later)
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu         where pip also looks for torch: the CPU build, 200 MB, not 3 GB

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PYTEST ?=

BIN := $(VENV)/bin
# Python compiles what is imported when it is; pip would take two minutes for all of it. It must be allowed to keep it: compiling
# PyTorch anew takes every process ten seconds.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt
EXTRA_INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PINS := pyproject.toml runtime/pyproject.toml constraints.txt
CORE := $(VENV)/.mapsto-core
DEV := $(VENV)/.mapsto-dev
DOCS := $(VENV)/.mapsto-docs

.DEFAULT_GOAL := help
.PHONY: help demo test tests test-changed test-all lint stubs docs venv dist sbom clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(CORE) ## the main job, end to end, into runs/demo/
	$(BIN)/mapsto run demo --out runs/demo

# The type checker keeps one core busy for a minute, so the tests do not wait for it.
test: $(DEV) ## every check: lint, types, layers, tests and doctests
	@$(MAKE) --no-print-directory --jobs 2 lint tests

tests: $(DEV) ## tests and doctests alone
	$(BIN)/python -m pytest -q -rs --durations=10 --numprocesses auto --dist worksteal $(PYTEST)

test-changed: $(DEV) ## the tests that bear on what differs from main
	$(BIN)/python scripts/changed_tests.py --run --numprocesses auto --dist worksteal $(PYTEST)

test-all: $(DEV) ## every test: all recipes, kills, every runtime, the browser, the site; an hour and more
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -q -rs --durations=25 --numprocesses auto --dist worksteal -m 'not gpu' $(PYTEST)

lint: $(DEV) ## ruff, pyright, import-linter, generated files up to date
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python scripts/stubs.py --check
	$(BIN)/pyright
	$(BIN)/lint-imports

stubs: $(DEV) ## write src/mapsto/__init__.pyi anew
	$(BIN)/python scripts/stubs.py

docs: $(DOCS) ## the site, into docs/_build/html; a broken link fails
	$(BIN)/python -m sphinx -W --keep-going -n -a -b html docs docs/_build/html

venv: $(DEV) ## .venv with everything that the tests need

dist: | $(BIN)/python ## the wheels and source archives of mapsto and mapsto-runtime, into dist/
	$(INSTALL) hatchling
	rm -rf dist
	cd runtime && $(abspath $(BIN))/python -m hatchling build -d $(abspath dist)
	$(BIN)/python -m hatchling build -d dist

sbom: ## what the wheels in dist/ bring with them, installed into .release, as dist/mapsto.cdx.json (CycloneDX)
	$(PYTHON) -m venv --clear .release
	.release/bin/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt $(EXTRA_INDEX) dist/mapsto_runtime-*.whl dist/mapsto-*.whl
	$(PYTHON) -m venv --clear .release-tools
	.release-tools/bin/python -m pip install --disable-pip-version-check --no-compile 'cyclonedx-bom>=7.5,<8'
	.release-tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --sv 1.6 --of JSON -o dist/mapsto.cdx.json .release/bin/python

clean: ## remove .venv, caches and the site, not runs/
	rm -rf docs/_build docs/reference $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist

# A half-made environment would look like a whole one the next time.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("mapsto needs Python 3.11 or later, this is %d.%d; choose one with: make PYTHON=python3.11 …" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The build backend is installed from the pins first, so that nothing is fetched unpinned into an isolated build. mapsto-runtime is named beside
# mapsto, which needs it: so pip takes the one in this checkout and asks no index for it.
$(CORE): $(PINS) | $(BIN)/python
	$(INSTALL) $(EXTRA_INDEX) torch hatchling editables
	$(INSTALL) --no-build-isolation -e ./runtime -e .
	@touch $@

$(DEV): $(PINS) | $(BIN)/python
	$(INSTALL) $(EXTRA_INDEX) torch hatchling editables
	$(INSTALL) --no-build-isolation -e ./runtime -e '.[dev,explain,grpc,kafka,lightning,online,search,serve,sign,studio,tensorboard,text,tracing,vision]'
	@touch $@ $(CORE)

$(DOCS): $(PINS) | $(BIN)/python
	$(INSTALL) $(EXTRA_INDEX) torch hatchling editables
	$(INSTALL) --no-build-isolation -e ./runtime -e '.[docs]'
	@touch $@ $(CORE)
