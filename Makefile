# Set-up, checks and the demo. Needs make, git and Python 3.11 or newer with pip.

PYTHON ?= python3
# Further options for every `pip install` (an index of CPU-only torch builds, say).
PIP_FLAGS ?=
PYTEST_FLAGS ?= -n 2 --dist worksteal
# What `make demo` runs, and where its files go.
DEMO_OUT ?= demo_output
DEMO = $(BIN)/headpatch rank --out $(DEMO_OUT) && \
  $(BIN)/headpatch ablate --heads top:3 --out $(DEMO_OUT) && \
  $(BIN)/headpatch sweep --kinds resample --out $(DEMO_OUT)/sweep && \
  $(BIN)/headpatch report $(DEMO_OUT)

VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
INPUTS := pyproject.toml constraints.txt
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) -c constraints.txt -e

ANNOUNCE = echo "installing into $(VENV): about a minute, longer where torch comes over a network"

# Two busy OpenMP threads on shared cores can be 10-100 times slower than one.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo all-extras test test-lowest lock lint docs format clean attention_data notebooks

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/run.stamp ## install headpatch, then rank, ablate and sweep heads of the bundled model; one page of it
	$(DEMO)

# A quarter of an hour on two cores, most of it the verdict. Its effects pair by pair stay out: 4 MB.
attention_data: $(VENV)/run.stamp ## make the committed results of the default study anew
	$(BIN)/headpatch rank --out $@
	$(BIN)/headpatch ablate --heads top:3,20.18,21.14,21.16,21.25,23.9 --out $@
	$(BIN)/headpatch sweep --kinds resample --out $@/sweep
	$(BIN)/headpatch path --out $@/path
	$(BIN)/headpatch verdict --n 200 --out $@/verdict
	rm $@/verdict/verdict.pt

notebooks: $(VENV)/test.stamp ## run the notebooks and keep what they show
	$(BIN)/python notebooks/make.py

# Tests never reach a network: the hub is switched off.
test: export HF_HUB_OFFLINE = 1
test: export TRANSFORMERS_OFFLINE = 1
# Workers, kernels and commands share what one of them compiled, wherever the shell says otherwise.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/test.stamp ## install with test extras, then run the tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# Every direct dependency at its lower bound, what those need at its newest.
test-lowest: export HF_HUB_OFFLINE = 1
test-lowest: export TRANSFORMERS_OFFLINE = 1
test-lowest: export PYTHONDONTWRITEBYTECODE =
test-lowest: $(LOWEST)/test.stamp ## run the tests with the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest $(PYTEST_FLAGS)

lock: $(VENV)/venv.stamp ## write lock.txt: constraints.txt for every platform, with hashes
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) uv
	{ echo "# Made by \`make lock\` of constraints.txt: the same versions for every platform, with hashes."; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11.7 --generate-hashes --no-annotate \
	  --no-header --all-extras --constraints constraints.txt pyproject.toml; } > lock.new
	mv lock.new lock.txt

lint: $(VENV)/dev.stamp ## style, types, the import contracts, and how large the package is
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/sizes.py

docs: $(VENV)/docs.stamp ## build the documentation into site/; a broken link fails
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs site

format: $(VENV)/dev.stamp ## let ruff mend what it can; write the tables of columns and the types of options anew
	$(BIN)/python -m scripts.formats
	$(BIN)/python -m scripts.keywords
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the environment, the caches and the demo's files
	rm -rf $(VENV) $(LOWEST) demo_output build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was installed from, so a second call installs nothing.
$(VENV)/venv.stamp $(LOWEST)/venv.stamp: %/venv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit("headpatch needs Python 3.11 or newer, but %s is %d.%d: try make PYTHON=python3.11" % ((sys.executable,) + sys.version_info[:2]) if sys.version_info < (3, 11) else 0)'
	@# Some distributions split ensurepip off: then the pip outside brings the venv its own.
	$(PYTHON) -m venv $* || \
	  { $(PYTHON) -m venv --clear --without-pip $* && $(PYTHON) -m pip --python $*/bin/python install --quiet $(PIP_FLAGS) pip; }
	@touch $@

$(VENV)/run.stamp: $(VENV)/venv.stamp $(INPUTS)
	@$(ANNOUNCE)
	$(INSTALL) .
	@touch $@

# The test extra holds the runtime dependencies too.
$(VENV)/test.stamp: $(VENV)/venv.stamp $(INPUTS)
	@$(ANNOUNCE)
	$(INSTALL) '.[test]'
	@touch $(VENV)/run.stamp $@

$(VENV)/docs.stamp: $(VENV)/venv.stamp $(INPUTS)
	@$(ANNOUNCE)
	$(INSTALL) '.[docs]'
	@touch $(VENV)/run.stamp $@

$(VENV)/dev.stamp: $(VENV)/venv.stamp $(INPUTS)
	@$(ANNOUNCE)
	$(INSTALL) '.[dev]'
	@touch $(VENV)/run.stamp $@

# uv takes a sixth of pip's time. It reads pip's settings nowhere, so those of the shell are handed on.
all-extras: export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
all-extras: export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
all-extras: export UV_INDEX ?= $(PIP_EXTRA_INDEX_URL)
all-extras: $(VENV)/venv.stamp ## install all that test, lint and docs need, by uv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(PIP_FLAGS) -c constraints.txt -e '.[test,docs,dev]'
	@touch $(foreach name,run test docs dev,$(VENV)/$(name).stamp)

$(LOWEST)/test.stamp: $(LOWEST)/venv.stamp pyproject.toml
	@echo "installing into $(LOWEST): on Linux with a torch of several gigabytes, unless PIP_FLAGS names an index of CPU builds"
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS) uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct $(PIP_FLAGS) \
	  -e '.[test,vision]'
	@touch $@
