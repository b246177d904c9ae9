# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: quickstart sample test test-system check venv clean

$(VENV)/.quickstart: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[quickstart]'
	touch $@

$(VENV)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[quickstart,test]'
	touch $@ $(VENV)/.quickstart

venv: $(VENV)/.test

# The whole quickstart with Microsoft's own SDK against a server of its own.
quickstart: $(VENV)/.quickstart
	@$(BIN)/moorage quickstart

# Microsoft's own file, unchanged, against a fresh server: make sample SAMPLE=path/to/provision_x509.py
sample: $(VENV)/.quickstart
	@$(BIN)/moorage quickstart --sample '$(SAMPLE)'

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=src:bench $(BIN)/mypy bench
	$(BIN)/lint-imports

# Everything that needs only pip and npm, no root.
test: check
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m 'not system'

# What needs root, Debian packages or network namespaces.
test-system: $(VENV)/.test
	tests/system/install
	$(BIN)/pytest -n 1 -m system

clean:
	rm -rf $(VENV) bench/bin
