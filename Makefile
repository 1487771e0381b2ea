# The two commands of the README. Each sets up what it needs in .venv, from scratch or from what is there.
PYTHON ?= python3
VENV := .venv
CONSTRAINTS ?= --constraint .ci/constraints.txt
READY := $(VENV)/ready
# Of numpydoc's checks: short docstrings need no sections, and parameters whose names say it all no description. Ruff (D1)
# asks for a docstring of everything that is public.
NOT_NEEDED := ES01,EX01,SA01,PR01,PR07,RT01,PR08,RT03,SS02,SS05,GL08

.PHONY: demo demo-model docs picture release-check test test-long test-gpu lint setup clean

demo: setup
	$(VENV)/bin/neurostorm-demo demo

# The picture of the README: the demo's report in Chromium
picture: demo
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1000,1400 --screenshot=docs/report.png \
		file://$(CURDIR)/demo/neurostorm/sub-01.html

# The weights of the demo model, anew: phantoms, pretraining, head; under an hour on two processors
demo-model: setup
	$(VENV)/bin/python -m neurostorm_bids.demo.training demo-model

test: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2 --dist loadfile

# Those that take long, README and site's commands among them
test-long: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n 2 --dist loadfile -m heavy

# What only a GPU can show; without one it says so
test-gpu: setup
	$(VENV)/bin/python tests/gpu/run.py

lint: setup
	$(VENV)/bin/ruff check --config .ci/ruff.toml .
	$(VENV)/bin/ruff format --config .ci/ruff.toml --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/numpydoc lint --ignore $(NOT_NEEDED) $$(find neurostorm_bids -name '*.py')
	if [ -x $(VENV)/bin/hadolint ]; then $(VENV)/bin/hadolint Dockerfile; fi

# The site, in docs/_build/html; its tutorials are run, and any warning, error or dead link stops it
docs: $(VENV)/docs-ready
	rm -rf docs/_build/html
	$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html
	$(VENV)/bin/python docs/links.py docs/_build/html
	$(VENV)/bin/python docs/widths.py docs/_build/html

setup: $(READY)

# Everything that a release needs, tried here
release-check: $(VENV)/release-ready
	.ci/release-check

$(VENV)/release-ready: $(READY)
	$(VENV)/bin/pip install --quiet $(CONSTRAINTS) --editable '.[release]'
	touch $@

$(VENV)/docs-ready: $(READY)
	$(VENV)/bin/pip install --quiet $(CONSTRAINTS) --editable '.[docs]'
	touch $@

# kernels of before go first: where the new ones do not compile, the tests are to say so
$(READY): setup.cfg setup.py neurostorm_bids/__init__.py neurostorm_bids/model/scan/kernels.c neurostorm_bids/resample/gather.c pyproject.toml .ci/constraints.txt
	rm -f neurostorm_bids/model/scan/*.so neurostorm_bids/resample/*.so
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(CONSTRAINTS) --editable '.[test,lint]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo dist docs/_build docs/reference/generated
