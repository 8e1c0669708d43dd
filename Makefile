# Everything runs in a virtual environment of its own; only Python 3.11+ and make are needed.
PYTHON ?= python3
VENV ?= .venv
PARITY ?= .venv-parity
RUN = $(VENV)/bin/python
WORKDIR ?= runs/demo

.PHONY: help demo test test-slow test-golden test-parity test-aot test-browser lines docs lint format clean

help:  ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

$(VENV)/demo: setup.cfg pyproject.toml
	@echo "Installing into $(VENV): 0.6 GB to download, 2.5 GB on disk (half of it TensorFlow, which reads records)."
	@echo "The demo then takes about 10 minutes on two CPU cores, 2.1 GiB of memory and 0.4 GiB of disk."
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	touch $@

demo: $(VENV)/demo  ## From songs to a new song on bundled music, on a CPU, in minutes
	$(VENV)/bin/jukejax demo --out $(WORKDIR)

test: $(VENV)/installed  ## The default test suite
	$(RUN) -m pytest -n auto --dist loadfile -m "not slow and not golden and not parity and not aot and not browser"

test-slow: $(VENV)/installed  ## The tests that take minutes
	$(RUN) -m pytest -n auto --dist loadfile -m slow

test-golden: $(VENV)/installed  ## Compare with recorded reference outputs in $$JUKEJAX_GOLDEN
	$(RUN) -m pytest -n auto --dist load -m golden

$(PARITY)/installed: tests/parity/requirements.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

test-parity: $(VENV)/installed $(PARITY)/installed  ## Compare exported models with HuggingFace's port of Jukebox
	JUKEJAX_PARITY_PYTHON=$(abspath $(PARITY)/bin/python) $(RUN) -m pytest -m parity

test-aot: $(VENV)/installed  ## Compile for TPUs that this machine does not have (installs libtpu)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[aot]'
	$(RUN) -m pytest -m aot

test-browser: $(VENV)/installed  ## Open the pages in chromium (apt install chromium)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	$(RUN) -m pytest -m browser

lines: $(VENV)/installed  ## Twenty lines sung by the shipped model, on a page: runs/lines/site
	$(VENV)/bin/jukejax evaluate lines --model small-songs --out runs/lines

docs: $(VENV)/installed  ## The documentation site, built strictly into site/
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(VENV)/bin/mkdocs build --strict

lint: $(VENV)/installed  ## Formatting, lint, types, import contracts
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/installed  ## Format, and fix what can be fixed automatically
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:  ## Remove the virtual environments (not runs/)
	rm -rf $(VENV) $(PARITY)
