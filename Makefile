# `make run`: environment, all notebooks on the toy profile, report.   `make test`: environment, lint, tests, notebooks.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
STAMP := .venv/.installed
PROFILE ?= toy
CONSTRAINTS ?= -c constraints.txt
# How many processes test: one a core, at most four (each needs about 2 GB).
JOBS ?= auto
# The first of these that runs; the packages have wheels for 3.12 and 3.13.
PYTHON := $(shell for p in python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

# Where the tested notebooks write, so that a test run changes no committed file.
NBENV := PYTHONPATH=tests PROFILE=toy HF_HUB_OFFLINE=1 TQDM_DISABLE=1 OUTPUT_DIR="$(CURDIR)/build/nbval" \
         CHECKPOINT_DIR="$(CURDIR)/build/nbval/checkpoints"

PARALLEL = -n $(JOBS) --maxprocesses 4

.PHONY: help env run test lint unit nbtest test-portable lab notebook reports report site golden bench clean

help:
	@echo "make run                        run every notebook on the toy profile, offline; ends with an HTML report"
	@echo "make test                       lint, unit tests, and every notebook through nbval, in JOBS processes"
	@echo "make test-portable              the tests that train, on other arithmetic and seeds; prints a table"
	@echo "make notebook N=01 PROFILE=lite run one notebook in place (writes it, its figures and its results file);"
	@echo "                                FORCE=1 lets a smaller profile replace a longer run"
	@echo "make lab                        open JupyterLab"
	@echo "make reports                    rewrite README's table and reports/*.md from the results files, and the notebooks' links"
	@echo "make report ASSIGNMENT=gaze     write the report of an assignment into build/report (FORMAT=docx, pdf or md; TEMPLATE=, DETAILS=)"
	@echo "make site                       build all notebooks and reports as a static site, into build/site"
	@echo "make bench                      side-by-side timings"

env: $(STAMP)

$(STAMP): requirements.txt constraints.txt overrides.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "This project needs Python 3.12 or 3.13, and none was found: install one, or put it first on PATH."; exit 1; fi
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "Could not make a virtual environment with $(PYTHON): on Debian or Ubuntu install its venv package."; exit 1; }
	@$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip install -q -p .venv -r requirements.txt $(CONSTRAINTS) --override overrides.txt
	$(BIN)/uv pip install -q -p .venv --no-deps -e .
	@touch $@

run: env
	@PROFILE="$(PROFILE)" $(if $(filter toy,$(PROFILE)),HF_HUB_OFFLINE=1) $(BIN)/python -m helpers.course.run_all

notebook: env
	@$(BIN)/python -m helpers.course.run_all --in-place $(if $(FORCE),--force) $(if $(N),"$(N)") $(if $(filter file,$(origin PROFILE)),,--profile "$(PROFILE)")

test: lint unit nbtest

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check -q

unit: env
	$(BIN)/python -m pytest $(PARALLEL) --dist worksteal

# The tests that train, on other vector instructions, thread counts and seeds: 18 runs, for after a change of what trains.
test-portable: env
	$(BIN)/python tests/portable.py

# Lax: every cell must run; cells tagged nbval-check-output must print what the committed notebook shows.
nbtest: env
	@rm -rf build/nbval
	$(NBENV) $(BIN)/python -m pytest -c tests/nbval.ini --rootdir . -p nbval_plugin $(PARALLEL) \
		--nbval-lax --nbval-current-env --nbval-cell-timeout 900 notebooks/*.ipynb
	$(NBENV) $(BIN)/python -m pytest tests/after_nbval

lab: env
	$(BIN)/jupyter lab notebooks

reports: env
	$(BIN)/python -m helpers.course.colab
	$(BIN)/python -m helpers.course.reports readme
	$(BIN)/python -m helpers.course.reports report

site: env
	$(BIN)/python -m helpers.course.site

FORMAT ?= docx

report: env
	$(BIN)/python -m helpers.course.document "$(ASSIGNMENT)" --format "$(FORMAT)" $(if $(TEMPLATE),--template "$(TEMPLATE)") $(if $(DETAILS),--details "$(DETAILS)")

# After a change that is meant: the toy results that later runs are compared with.
golden: run
	cp build/toy/results/*.toy.json tests/golden/

bench: env
	@for script in bench/[a-z]*.py; do $(BIN)/python $$script; done

clean:
	rm -rf build .venv
