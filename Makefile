# Everything runs in a virtual environment of its own; nothing but Python 3.11+ and make is needed.
PYTHON ?= python3
VENV ?= .venv
PARITY ?= .venv-parity
RUN = $(VENV)/bin/python
WORKDIR ?= runs/demo

.PHONY: help demo test test-slow test-golden test-parity test-aot test-browser docs lint format clean

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[data,beam,align,report,evaluate,dev]'
	touch $@

demo: $(VENV)/installed  ## From songs to a new song on bundled music, on a CPU, in minutes
	$(RUN) -m experiments.demo --out $(WORKDIR)

test: $(VENV)/installed  ## The default test suite
	$(RUN) -m pytest -n auto --dist loadfile -m "not slow and not golden and not parity and not aot and not browser"

test-slow: $(VENV)/installed  ## The tests that take minutes
	$(RUN) -m pytest -n auto --dist loadfile -m slow

test-golden: $(VENV)/installed  ## Compare with recorded reference outputs in $$JUKEJAX_GOLDEN
	$(RUN) -m pytest -m golden

$(PARITY)/installed: tests/parity/requirements.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

test-parity: $(VENV)/installed $(PARITY)/installed  ## Compare exported models with HuggingFace's port of Jukebox
	JUKEJAX_PARITY_PYTHON=$(abspath $(PARITY)/bin/python) $(RUN) -m pytest -m parity

test-aot: $(VENV)/installed  ## Compile for TPUs that are not there (installs libtpu)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[aot]'
	$(RUN) -m pytest -m aot

test-browser: $(VENV)/installed  ## Open the pages in chromium (apt install chromium)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	$(RUN) -m pytest -m browser

docs: $(VENV)/installed  ## The documentation site, built strictly into site/
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(VENV)/bin/mkdocs build --strict

lint: $(VENV)/installed  ## Formatting, lint, types and the direction of imports
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/installed  ## Format and mend what can be mended
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:  ## Remove the virtual environments (not runs/)
	rm -rf $(VENV) $(PARITY)
