# The two commands are `make demo` and `make test`; `make help` lists the others.
PYTHON ?= python3
BIN := .venv/bin
NAME ?=

export DAGSTER_HOME := $(CURDIR)/.dagster_home
export NO_ALBUMENTATIONS_UPDATE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo ui test lint acknowledge bench clean clean-data

help:
	@echo "make demo        install, run the pipeline solar_cells, show what came out"
	@echo "make ui          open Dagster's UI on 127.0.0.1:3000"
	@echo "make test        install what the tests need, run them"
	@echo "make lint        formatting, lint, types, layers"
	@echo "make acknowledge accept that code of a stage changed while its output did not (or its version was bumped)"
	@echo "make bench       all benchmarks, or one: make bench NAME=demo"
	@echo "make clean       remove the environment and the tools' caches; what was computed stays"
	@echo "make clean-data  remove everything computed: features, models, reports, Dagster's runs"

demo: .venv/demo $(DAGSTER_HOME)/dagster.yaml
	@$(BIN)/tl-dagster run solar_cells

ui: .venv/demo $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000

test: .venv/dev
	$(BIN)/pytest

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.code_versions

acknowledge: .venv/dev
	$(BIN)/python -m tools.code_versions --accept

bench: .venv/dev
	$(BIN)/python -m benchmarks $(NAME)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist

clean-data:
	rm -rf .dagster_home .tl_dagster

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/demo .venv/dev: .venv/%: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "installing (about two minutes the first time)"
	@$(BIN)/pip install -q -c constraints.txt -e '.[$*]'
	@touch $@

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	@mkdir -p $(@D)
	@cp $< $@
