# Two commands for a newcomer: `make demo` and `make test`. Each makes its own virtual environment and installs the
# pinned versions; nothing else has to be there but Python 3.11 to 3.13 with pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint up bench audit clean

demo: $(VENV)/installed
	$(BIN)/algobot demo

up: $(VENV)/installed
	$(BIN)/algobot up

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 4 --dist loadfile

# What takes longer than the ten minutes of the default suite: the whole stack, kills, faults.
test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

# Style, layout, types, and the rooms' one-way imports (.importlinter).
lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

$(VENV)/installed-lint: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lint]"
	touch $@

# Known vulnerabilities of the pinned versions, by pip-audit in an environment of its own (exit code 3: could not ask).
audit: constraints.txt
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/python deploy/supply.py audit

bench: $(VENV)/installed-test
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info
