# One virtual environment, six targets. Nothing but Python 3.11 (or later) with venv, and make, is assumed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install validate test lint docs benchmarks clean

install: $(VENV)/.installed

# torch comes first, alone and pinned: a range in another package's requirements could otherwise pull a larger build.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e ".[train,dev,ray,slurm]"
	touch $@

validate: install
	$(BIN)/decaylab validate

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/basedpyright

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The laws' pages are written from their docstrings, proofs and demonstrations; the site is build/site/index.html.
docs: install
	$(BIN)/python -m paper.pages
	$(BIN)/mkdocs build --quiet

benchmarks: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
