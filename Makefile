# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
WORKERS ?= 2

.PHONY: quickstart sample test test-system pictures check venv clean

$(VENV)/.quickstart: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[quickstart]'
	touch $@

$(VENV)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[quickstart,test]'
	touch $@ $(VENV)/.quickstart

# Microsoft's clients for Node, where there is Node.
NODE := tests/clients/node
$(NODE)/node_modules/.installed: $(NODE)/package.json
	cd $(NODE) && npm install --silent --ignore-scripts  # the TPM client's TSS would compile what only Windows uses
	touch $@
NODE_CLIENTS := $(if $(shell command -v node && command -v npm),$(NODE)/node_modules/.installed)

venv: $(VENV)/.test $(NODE_CLIENTS)

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
# out, and that is said; so are those of clients for Node (marked node) where there is none.
MAY_BIND_443 = $(shell $(BIN)/python -c \
	'from moorage.cli.ports import Port, probe; print(probe("127.0.0.1", 443) is not Port.NOT_PERMITTED)')
LEFT_OUT = system$(if $(filter True,$(MAY_BIND_443)),, or port443)$(if $(NODE_CLIENTS),, or node)
ENABLE_443 = sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443

# Everything that needs only pip and npm, no root.
test: check $(NODE_CLIENTS)
	@echo 'Left out: $(LEFT_OUT).$(if $(filter port443,$(LEFT_OUT)), For port443: $(ENABLE_443))'
	@$(if $(NODE_CLIENTS),,echo 'For node: install Node 20 with npm.')
	$(BIN)/pytest -n $(WORKERS) -m 'not ($(LEFT_OUT))'

# What needs root, Debian packages or network namespaces; then the portal in a browser.
test-system: venv
	tests/system/install
	$(BIN)/pytest -n 1 -m 'system$(if $(NODE_CLIENTS),, and not node)' --ignore tests/browser
	$(BIN)/pytest -n $(WORKERS) tests/browser

# The pictures of docs/quickstart-portal.md, taken anew by the test that follows it.
pictures: venv
	MOORAGE_PICTURES=docs/pictures $(BIN)/pytest -n 0 tests/browser/test_quickstart.py

clean:
	rm -rf $(VENV) bench/bin $(NODE)/node_modules
