# souk: `make` prints this menu.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
# The environment is named by what it is made from: another lock, another environment.
LOCK := $(shell cat requirements.in requirements-dev.in constraints.txt | sha256sum | cut -c1-12)
VENV := .venv/$(LOCK)
BIN := $(VENV)/bin
BENCH := .venv/bench-$(shell cat requirements.in constraints.txt bench/requirements.txt | sha256sum | cut -c1-12)
export SCARF_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
-include .env
export

help: ## print this menu
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BIN)/.ready ## make the environment (.venv), if it is not there

$(BIN)/.ready:
	@command -v $(PYTHON) >/dev/null || { echo "souk: $(PYTHON) is missing. Install Python 3.11, or set PYTHON."; exit 1; }
	@echo "making the environment in $(VENV): 2 to 5 minutes, 2.5 GB"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -r requirements.in -r requirements-dev.in \
	    2> >(grep -v '^WARNING: Location' >&2)
	@touch $@

demo: setup ## run the whole job on a generated shop and print recommendations and search results
	@$(BIN)/python -m souk demo

up: setup ## start Postgres and the Airflow UI
	@$(BIN)/python -m souk up

down: setup ## stop what `make up` and `make demo` started
	@$(BIN)/python -m souk down

status: setup ## say what is live, since when, from which data
	@$(BIN)/python -m souk status

psql: setup ## open psql on the souk database
	@$(BIN)/python -m souk psql

docs: setup ## write the data dictionary as one HTML page
	@$(BIN)/python -m souk docs

test: setup ## run all tests
	@$(BIN)/python -m pytest

test-fast: setup ## run the tests that take a moment
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile

lint: setup ## check style, types and SQL; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sqlfluff lint --disable-progress-bar -q dbt/models sql

bench: bench-ranking bench-category bench-serving bench-encode bench-load bench-scale ## run every benchmark

bench-ranking: $(BENCH)/.ready ## compare ranking with baselines and peers, tuned alike
	@$(BENCH)/bin/python -m bench.ranking

# On top of the product's environment, which stays as it is.
$(BENCH)/.ready: bench/requirements.txt $(BIN)/.ready
	@rm -rf $(BENCH) && $(PYTHON) -m venv $(BENCH)
	@$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	    > "$$($(BENCH)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/souk.pth"
	@$(BENCH)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -r bench/requirements.txt \
	    2> >(grep -v '^WARNING: Location' >&2)
	@touch $@

bench-serving: setup ## time the api next to the bare vector query, on 100,000 and 1,000,000 products
	@$(BIN)/python -m bench.serving

bench-category: setup ## compare the category model with the reference model
	@$(BIN)/python -m bench.category

bench-encode: $(BENCH)/.ready ## time encoding through Spark next to SentenceTransformer and a pandas UDF
	@$(BENCH)/bin/python -m bench.encode

bench-load: setup ## time loading through Spark next to a bare COPY and to Spark's JDBC writer
	@$(BIN)/python -m bench.load

bench-scale: setup ## time every stage, from files to a published release, on 10,000 to 1,000,000 products
	@$(BIN)/python -m bench.scale

clean: ## remove generated files, the database included; asks first
	@read -r -p "Remove var/ and .venv/, the database included? [y/N] " answer && [ "$$answer" = y ]
	@[ ! -x $(BIN)/python ] || $(BIN)/python -m souk down || true
	@rm -rf var .venv

.PHONY: help setup demo up down status psql docs test test-fast lint bench bench-ranking bench-category bench-serving bench-encode bench-load bench-scale clean
