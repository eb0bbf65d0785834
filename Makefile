# What the README names: `make demo`, `make test`, `make bench`. All of them make the virtual
# environment first; nothing else needs to be there but Python and, for PostgreSQL, nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench lint clean

demo: $(VENV)/installed
	$(BIN)/statscache demo

test: $(VENV)/installed-for-tests
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGUMENTS)

bench: $(VENV)/installed-for-tests
	$(BIN)/python -m benchmarks

lint: $(VENV)/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
