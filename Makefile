# `make help` lists what there is. Everything lives in $(VENV); remove that folder to start afresh.
PYTHON ?= python3
VENV ?= .venv
WHEEL_VENV ?= $(VENV)-wheel
DEMO_ARGS ?=
BENCH_ARGS ?=
NOTEBOOK_ARGS ?=
PYTEST_ARGS ?=
PIP_ARGS ?= --quiet --disable-pip-version-check
INSTALL_ARGS ?=

PY := $(VENV)/bin/python
PIP = -m pip install $(PIP_ARGS) $(INSTALL_ARGS) --no-build-isolation -c constraints.txt
READY := $(VENV)/.ready
FINDINGS := mediation carriers word_places information word_experiments classification two_denoisers localising truth \
  quickfix_settings quickfix_keep own_words edits dictionaries circuits directions bias_sites shipped_dictionary \
  bias_features bias_alike planted_bias invariant guidance findings_drive_changes beside plan_time page_picture gpu

.PHONY: help setup demo test stress lint format types bench findings rehearse notebooks docs wheel wheel-demo clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## the environment in .venv, with exactly the versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "denoscope needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	@test -x $(PY) || { echo "Making an environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing denoscope and what it needs (the first time this takes some minutes)"
	@$(PY) -m pip install $(PIP_ARGS) $(INSTALL_ARGS) -c constraints.txt setuptools
	@$(PY) $(PIP) -e '.[dev]'
	@touch $@

demo: $(READY)  ## the main job on the embedded model; says where its page is
	@$(VENV)/bin/denoscope demo $(DEMO_ARGS)

test: $(READY)  ## all tests, the layer test and the examples in docs/ and docstrings included
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

stress: $(READY)  ## tests that are too long for every change: many kills, full-size solves, a real JupyterLab
	@$(PY) $(PIP) -e '.[notebooks]'
	@$(PY) -m pytest -m stress $(PYTEST_ARGS)

lint: $(READY)  ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(READY)  ## let ruff rewrite what it can
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

types: wheel  ## mypy on the installed wheel: what a user's type checker sees
	@cd $(WHEEL_VENV) && $(abspath $(PY)) -m mypy --config-file $(CURDIR)/pyproject.toml \
	  --python-executable bin/python -p denoscope

bench: $(READY)  ## benchmarks against their targets: ratios on this machine; the table in the README
	@$(PY) benchmarks/run.py $(BENCH_ARGS)

findings: $(READY)  ## numbers and pictures in docs/ that come from the embedded models, measured anew
	@for part in $(FINDINGS); do \
	  echo "benchmarks/$$part.py"; $(PY) benchmarks/$$part.py || exit 1; done

rehearse: $(READY)  ## the same in small, twice, and into build/: before hours are spent on it
	@for part in $(FINDINGS) robustness; do $(PY) benchmarks/rehearse.py $$part || exit 1; done

notebooks: $(READY)  ## every notebook, whole, as .ipynb with figures in build/notebooks
	@$(PY) benchmarks/notebooks.py $(NOTEBOOK_ARGS)

docs: $(READY)  ## the programming reference as pages in build/docs
	@$(PY) $(PIP) -e '.[docs]'
	@$(VENV)/bin/pdoc --docformat google --output-directory build/docs denoscope

# The wheel goes into an environment of its own, which holds nothing but what the wheel asks for.
wheel: $(READY)  ## a wheel in dist/, also installed into an empty environment
	@rm -rf build/lib build/bdist.* dist
	@$(PY) -m pip wheel $(PIP_ARGS) --no-build-isolation --no-deps --wheel-dir dist .
	@test -x $(WHEEL_VENV)/bin/python || $(PYTHON) -m venv $(WHEEL_VENV)
	@$(WHEEL_VENV)/bin/python -m pip uninstall --quiet --yes denoscope 2>/dev/null
	@$(WHEEL_VENV)/bin/python -m pip install $(PIP_ARGS) $(INSTALL_ARGS) -c constraints.txt dist/denoscope-*.whl

wheel-demo: wheel  ## the demo from the installed wheel, outside the checkout, and what it has to have found
	@folder=$$(mktemp -d) && cd $$folder && \
	  $(abspath $(WHEEL_VENV))/bin/denoscope demo --quick --seeds 2 --output demo $(DEMO_ARGS) && \
	  $(abspath $(WHEEL_VENV))/bin/python $(CURDIR)/.ci/check_demo.py demo && rm -rf $$folder

clean:  ## remove built things, the environments too
	rm -rf build dist *.egg-info $(VENV) $(WHEEL_VENV)
