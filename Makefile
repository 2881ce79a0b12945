# Two commands for a fresh machine: `make demo` and `make test`. Each makes its own virtual environment.
PYTHON ?= python3
VENV ?= .venv
STAMP = $(VENV)/.installed

.PHONY: demo test test-all lint clean

demo: $(STAMP)
	$(VENV)/bin/irlens demo

test: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile

test-all: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile -m "not gpu"

lint: $(STAMP)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) irlens-out build dist
