# Two commands for a newcomer: `make demo` and `make test`. Each creates the virtual environment and installs the pinned
# versions into it. All you need beforehand is Python 3.11 to 3.13 with pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow coverage coverage-feed lint check docs hooks up bench audit clean

demo: $(VENV)/installed
	$(BIN)/algobot demo

up: $(VENV)/installed
	$(BIN)/algobot up

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 4 --dist loadfile

# Tests that take longer than the default suite allows: the whole stack, kills, injected faults.
test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

# The default suite with the share of statements it executes; which ones it misses: build/coverage/index.html.
coverage: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 4 --dist loadfile --cov --cov-report=term:skip-covered --cov-report=html

# A bounded form for continuous integration: the tests that decide what candles and which state are accepted, and the share
# of statements of feed/ and declared/ that they execute. Below 90 % it fails.
coverage-feed: $(VENV)/installed-test
	$(BIN)/python -m pytest -q -n 4 tests/test_archive.py tests/test_declared.py tests/test_exchange.py \
	  tests/test_folder.py tests/test_klines.py tests/test_planner.py tests/test_simulated.py tests/test_symbols.py \
	  --cov=algobot_assets.feed --cov=algobot_assets.declared --cov-report=term:skip-covered --cov-fail-under=90

# Style, layout, the order of the rooms (.importlinter), and types. .pre-commit-config.yaml runs the same commands.
lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# What Dagster loads: the project's files are valid, and every definition can be loaded and listed.
check: $(VENV)/installed
	$(BIN)/dg check yaml
	$(BIN)/dg check toml
	$(BIN)/dg check defs
	$(BIN)/dg list defs > /dev/null

# The documentation as a website in build/docs, from docs/ and mkdocs.yml; any broken link or reference is an error.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/docs/index.html"

# Run the checks of `make lint` before every commit.
hooks: $(VENV)/installed-lint
	$(BIN)/pre-commit install

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

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

# Known vulnerabilities of the pinned versions, by pip-audit in an environment of its own.
# Exit code 3: the advisory service could not be reached.
audit: constraints.txt
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/python deploy/supply.py audit

bench: $(VENV)/installed-test
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info
