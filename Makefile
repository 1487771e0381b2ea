# The two commands of the README. Each sets up what it needs in .venv, from scratch or from what is there.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready

.PHONY: demo test lint setup clean

demo: setup
	$(VENV)/bin/neurostorm-demo demo

test: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2 --dist loadfile

lint: setup
	$(VENV)/bin/ruff check --config .ci/ruff.toml .
	$(VENV)/bin/ruff format --config .ci/ruff.toml --check .
	if [ -x $(VENV)/bin/hadolint ]; then $(VENV)/bin/hadolint Dockerfile; fi

setup: $(READY)

$(READY): setup.cfg setup.py neurostorm_bids/model/scan/kernels.c pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint .ci/constraints.txt --editable '.[test]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo
