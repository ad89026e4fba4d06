# Two commands are enough: `make demo` shows the whole idea, `make test` proves it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help setup demo test coverage test-integration check fmt bench docs up down clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(READY)  ## a virtual environment with everything, at the pinned versions

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pipeline,checks,serve,dev]'
	@touch $(READY)

demo: $(READY)  ## the main job: tickets checked, a prompt tuned, judged, registered, used
	@$(BIN)/python examples/demo.py

test: $(READY)  ## the tests: CPU, offline
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not long"

coverage: $(READY)  ## the same, with the lines of pipelines that no test runs
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not long" --cov=pipelines --cov-report=term-missing:skip-covered

test-integration: $(READY)  ## real servers, a real browser, real S3, stories of minutes
	$(BIN)/python -m pytest tests -n 2 --dist loadfile -m "long or slow or s3 or browser"

check: $(READY)  ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(READY)  ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## the benchmarks' tables, from the results kept with them
	$(BIN)/python benchmarks/recipe_search/run.py report
	$(BIN)/python benchmarks/promotion_race/run.py --report
	$(BIN)/python benchmarks/quality/run.py --report
	$(BIN)/python benchmarks/data_scale/run.py --report

docs: $(READY)  ## hold the documentation to the code: links, commands, keys, defaults
	$(BIN)/python -m pytest -q tests/test_docs.py

up: $(READY)  ## start Prefect's and MLflow's UIs and serve the deployments
	$(BIN)/promptmint up

down:  ## stop them
	$(BIN)/promptmint down

clean:  ## forget every run made here; the virtual environment stays
	rm -rf .promptmint
