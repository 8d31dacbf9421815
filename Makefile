# make demo    set up, train on the embedded MNIST images, evaluate, show the result
# make test    set up, run the tests
# make lint    ruff and mypy
# make coverage  which lines no test runs, into build/coverage/report.txt (half an hour)
# make docs    build the site into build/site; every link within it leads somewhere
# make docs-links  the links that lead elsewhere (needs a network)
# make bench   measure on the CPU, into docs/performance.md and the README (at most 30 minutes)
# make smoke   the wheel alone in an empty environment: the README's lines (6 GB of disk)
# make lowest  some tests with the lowest versions that pyproject.toml allows (8 GB of disk)
# make gpu     measure on a GPU, into docs/performance-gpu.md (22 minutes)
# make pictures  the docs' pictures anew, from a run of their own (needs Chromium)
# make figures train what the packages' READMEs report, and write it there (half an hour of two cores each)

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
# The packages that come with simsiam-zoo and are installed on their own.
PLUGINS := $(sort $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
EDITABLE := -e '.[dev,docs]' $(PLUGINS:%=-e ./%)
# The demo's folder is new each time, so that it never lands on another run.
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)

# Where the shell forbids bytecode, each of the many processes would compile the package anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint coverage docs docs-links smoke lowest bench gpu figures pictures clean

demo: $(READY)
	@$(PYTHON) -m simsiam_zoo train --preset mnist-5k --out $(DEMO)

test: $(READY)
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: $(READY)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

coverage: $(READY)
	@rm -rf build/coverage
	@OMP_NUM_THREADS=1 $(PYTHON) -m coverage run -m pytest -n auto --maxprocesses 4 --dist worksteal
	@$(PYTHON) -m coverage combine --quiet
	@$(PYTHON) -m coverage report > build/coverage/report.txt
	@tail -n 1 build/coverage/report.txt

docs: $(READY)
	@$(PYTHON) -m sphinx -q -W --keep-going -n -c docs . build/site
	@echo "build/site/index.html"

docs-links: $(READY)
	@$(PYTHON) -m sphinx -q -b linkcheck -c docs . build/links

smoke: $(READY)
	@.ci/smoke

lowest:
	@.ci/lowest

bench: $(READY)
	@$(PYTHON) benchmarks/cpu.py $(BENCH)

# With PYTHON=python3 the machine's own packages are used, and nothing is installed.
gpu: $(if $(filter $(VENV)/%,$(PYTHON)),$(READY))
	@$(PYTHON) benchmarks/gpu.py $(GPU)

figures: $(READY)
	@$(PYTHON) plugins/figures.py

# The run stays in build/pictures and is used again; without that folder it is trained anew.
pictures: $(READY)
	@$(PYTHON) docs/pictures.py

# Made again only when what is to be installed changes. uv where it is, else venv and pip.
$(READY): pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing $(VENV) && \
	  uv pip install --quiet --python $(PYTHON) $(EDITABLE); \
	else \
	  $${PYTHON3:-python3} -m venv $(VENV) && \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check $(EDITABLE); \
	fi
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
