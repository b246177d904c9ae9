# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
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

# Clients over WebSockets cannot leave port 443. Where this user may not bind it, their tests (marked port443) are left
# out, and that is said.
MAY_BIND_443 = $(shell $(BIN)/python -c \
	'from moorage.cli.ports import Port, probe; print(probe("127.0.0.1", 443) is not Port.NOT_PERMITTED)')
LEFT_OUT = system$(if $(filter True,$(MAY_BIND_443)),, or port443)
ENABLE_443 = sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443

# Everything that needs only pip and npm, no root.
test: check
	@echo 'Left out: $(LEFT_OUT).$(if $(filter port443,$(LEFT_OUT)), For these: $(ENABLE_443))'
	$(BIN)/pytest -n $(WORKERS) -m 'not ($(LEFT_OUT))'

# What needs root, Debian packages or network namespaces.
test-system: $(VENV)/.test
	tests/system/install
	$(BIN)/pytest -n 1 -m system

clean:
	rm -rf $(VENV) bench/bin
