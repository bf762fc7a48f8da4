# Run `make` to see the targets.

# The first that is new enough is taken; or make PYTHON=/path/to/python3
PYTHON := python3.11 python3
PYTHON313 ?= python3.13
CONSTRAINTS := .ci/constraints.txt
BIN := .venv/bin
STAMP := .venv/.installed
TOOLS := .venv/.tools
LOWEST := .venv/lower-bounds
NOTEBOOKS := $(wildcard notebooks/*.ipynb notebooks/further/*.ipynb)
STUDENT := $(wildcard notebooks/student/*.ipynb)
# One process a core; a file's tests and a notebook's cells stay together, in order.
SPREAD := -n auto --dist loadfile
NBVAL := $(SPREAD) --nbval-lax --nbval-current-env --nbval-cell-timeout=60
# Notebooks in tests: few steps, no network, and one thread in each of the processes.
SMOKE := LABS_PROFILE=smoke HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help environment tools labs test lint house lower-bounds colab own-data jupyter notebooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

environment: $(STAMP) ## create .venv and install what the labs need

tools: $(TOOLS) ## install also what tests and grading need

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@for python in $(PYTHON); do \
	    if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' \
	        2>/dev/null; then $$python -m venv .venv; exit; fi; \
	done; \
	echo 'The labs need Python 3.11 or newer, with its venv module. None of these is:' \
	    '$(PYTHON). Install it, or name yours: make PYTHON=/path/to/python3' >&2; \
	exit 1
	$(BIN)/python -m pip install -e '.[lab]' -c $(CONSTRAINTS)
	$(BIN)/jupyter labextension disable @jupyter/nbgrader # its menu is for graders
	@touch $@

$(TOOLS): $(STAMP)
	$(BIN)/python -m pip install -e '.[lab,test,grade,browser,rl]' -c $(CONSTRAINTS)
	@touch $@

labs: $(STAMP) ## run all labs, judge their claims, write build/labs/
	$(BIN)/labs run

test: lint ## lint, run all tests, execute every notebook cell in few steps
	$(BIN)/python -m pytest $(SPREAD)
	$(SMOKE) LABS_STRICT=1 $(BIN)/python -m pytest $(NBVAL) $(NOTEBOOKS)
	$(SMOKE) LABS_STRICT=0 $(BIN)/python -m pytest $(NBVAL) $(STUDENT)

lint: $(TOOLS) ## check the style of code and notebooks, and the order of imports
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-logo

house: ## measure the packages: lines by room, long files and functions
	@$(firstword $(wildcard $(BIN)/python) python3) tests/house.py

lower-bounds: $(LOWEST)/.installed ## run widgets, TRL and labs, in few steps, at the oldest versions
	$(LOWEST)/bin/python -m pytest $(SPREAD) tests/course/test_widgets.py \
	    tests/course/test_trl.py tests/parity
	$(SMOKE) LABS_STRICT=1 $(LOWEST)/bin/python -m pytest $(NBVAL) $(NOTEBOOKS)

# The list leaves out what torch's own build asks for, and TRL's bounds, which are higher
# than what it runs with.
$(LOWEST)/.installed: $(STAMP) pyproject.toml .ci/lower-bounds.txt
	$(BIN)/python -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --no-compile -c .ci/lower-bounds.txt torch
	$(LOWEST)/bin/pip install --no-compile --no-deps -r .ci/lower-bounds.txt
	$(LOWEST)/bin/pip install --no-deps -e .
	@touch $@

colab: $(TOOLS) ## run all notebooks at Colab's versions, with its first cell (GBs, slow)
	PYTHON313=$(PYTHON313) $(BIN)/python tests/colab/run.py

own-data: $(STAMP) ## run the labs, in few steps, on a preference file of every format (slow)
	$(BIN)/python tests/notebooks/own_data.py

jupyter: $(STAMP) ## open the labs in JupyterLab
	$(BIN)/jupyter lab notebooks

notebooks: $(STAMP) ## execute the labs in place, cleaned; make the student versions
	$(BIN)/labs run --in-place
	$(BIN)/labs release

clean: ## remove what was built (not the environment)
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find labs_helpers labs_tools tests -name __pycache__ -prune -exec rm -rf {} +
