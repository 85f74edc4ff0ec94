# Two commands: `make study` runs the demo study, `make test` the checks. Both install on their first run and only then.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CORES ?= 2
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install study test check lint clean

help:
	@echo "make study   install, then run the demo study into results/ (CORES=$(CORES))"
	@echo "make test    install, then the static checks and the tests (CORES=$(CORES))"
	@echo "make clean   remove the environment and the caches; results/ stays"

install: $(STAMP)

# The stamp remembers which pyproject and which lock it installed, by their time and by its own content.
$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"shapeflow needs Python 3.11 to 3.13, and $(PYTHON) is {v[0]}.{v[1]}: write make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

study: $(STAMP)
	$(BIN)/snakemake --cores $(CORES) --workflow-profile workflow/profiles/default

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

# As many processes as cores: one that is done takes half of what another still has.
test: lint
	$(BIN)/python -m pytest -n $(CORES) --dist worksteal

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .snakemake
