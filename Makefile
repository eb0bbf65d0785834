# What the README names: `make demo`, `make test`, `make bench`. All of them make the virtual
# environment first; nothing else needs to be there but Python and, for PostgreSQL, nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Twice the processors: many tests wait, for a hub or a server.
WORKERS := $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))

.PHONY: demo test test-long check-install bench lint clean

demo: $(VENV)/installed
	$(BIN)/statscache demo

test: $(VENV)/installed-for-tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGUMENTS)

test-long: $(VENV)/installed-for-tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long $(PYTEST_ARGUMENTS)

# In an environment of its own: what the tests need could hide what the program lacks.
check-install:
	$(PYTHON) .ci/check_install.py

bench: $(VENV)/installed-for-tests
	$(BIN)/python -m benchmarks

lint: $(VENV)/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.py pyproject.toml
	@echo "Installing statscache and what it requires into $(VENV): a minute or two"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-for-tests: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
