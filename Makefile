# Two commands for a fresh machine: `make demo` and `make test`. Each makes its own virtual environment.
PYTHON ?= python3
VENV ?= .venv
STAMP = $(VENV)/.installed
DOCS_VENV ?= .venv-docs
DOCS_STAMP = $(DOCS_VENV)/.installed

.PHONY: demo test test-all lint docs clean

demo: $(STAMP)
	$(VENV)/bin/irlens demo

test: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile

test-all: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile -m "not gpu"

lint: $(STAMP)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .

docs: $(DOCS_STAMP)
	PATH="$(abspath $(DOCS_VENV))/bin:$$PATH" $(DOCS_VENV)/bin/python docs/tools/build.py

# Only the builder: pages are written from the sources, and the commands' options load nothing heavy.
$(DOCS_STAMP): pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python docs/tools/requirements.py | xargs -d '\n' $(DOCS_VENV)/bin/python -m pip install --quiet
	touch $(DOCS_STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(DOCS_VENV) .cache irlens-out build dist
