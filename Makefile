# make demo      the main job: train, align, merge, compare; a table and figures in demo_output/
# make test      every test and doctest that belongs to a change
# make nightly   all tests, the long ones too; mutants; the tests against the built wheel
# make test-oldest, test-newest   the tests with the ends of the range of versions, beside .venv
# make lint      ruff, mypy, direction of imports, docstrings
# make bench     every benchmarks/bench_*.py
# make docs      docs/_build/html
# make clean     remove what these leave behind, except the environment
#
# The environment is made once, in .venv, and brought up to date when setup.cfg or the
# constraints change. Choose others with PYTHON=..., VENV=..., CONSTRAINTS=... (empty: none).

VENV ?= .venv
CONSTRAINTS ?= constraints.txt
WORKERS ?= 2

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
FOUND = $(shell for p in python3 python3.13 python3.12 python3.11; do \
	if "$$p" -c '$(SUPPORTED)' >/dev/null 2>&1; then echo "$$p"; break; fi; done)
PYTHON ?= $(FOUND)

BIN := $(VENV)/bin
READY = $(VENV)/.ready-$(subst /,_,$(CONSTRAINTS))
PIP = $(BIN)/python -m pip install --quiet --no-input $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

export MPLBACKEND := Agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# One process, one core: tests run in WORKERS processes, and sklmc trains with one thread anyway.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST = $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=15

.PHONY: help demo test test-oldest test-newest nightly wheel-test lint bench docs clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(BIN)/python:
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "sklmc needs Python 3.11, 3.12 or 3.13; $(if $(PYTHON),'$(PYTHON)' is none of them,found none)." >&2; \
		echo "Install one and name it: make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# .ready-<constraints>-<extra>: the package, editable, with one of its extras.
$(READY)-%: setup.cfg pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(PIP) -e '.[$*]'
	@touch $@

demo: $(READY)-plot
	$(BIN)/python examples/demo.py

test: $(READY)-test
	$(PYTEST)

# Each makes an environment of its own; torch alone may be a download of several GB.
test-oldest test-newest: test-%:
	$(MAKE) test VENV=.venv-$* CONSTRAINTS=constraints-$*.txt

nightly: $(READY)-test $(READY)-zoo wheel-test
	$(PYTEST) -m ""
	$(BIN)/python -m tests.mutation.sample --n 400 --seed 0 --again --jobs $(WORKERS)

# Build sdist and wheel, then run the tests of the sdist against the installed wheel.
wheel-test: $(READY)-test
	rm -rf .wheel-test
	$(BIN)/python -m build --outdir .wheel-test/dist .
	$(BIN)/python -m venv .wheel-test/venv
	.wheel-test/venv/bin/python -m pip install --quiet --no-input \
		$(if $(CONSTRAINTS),-c $(CONSTRAINTS)) "$$(echo .wheel-test/dist/sklmc-*.whl)[test]"
	tar -xzf .wheel-test/dist/sklmc-*.tar.gz -C .wheel-test
	mv .wheel-test/sklmc-* .wheel-test/source
	rm -rf .wheel-test/source/sklmc
	cd .wheel-test/source && $(ONE_THREAD) ../venv/bin/python -m pytest -n $(WORKERS) \
		--dist worksteal --pyargs sklmc tests

lint: $(READY)-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m numpydoc.hooks.validate_docstrings $$(find sklmc -name '*.py' | sort)

# What some benchmarks look at but nobody needs: in a folder, never in an environment.
.cache/real_nets/.ready: benchmarks/real_nets.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-input --upgrade --no-deps --target $(@D) -r $<
	@touch $@

bench: $(READY)-bench .cache/real_nets/.ready
	@set -e; for script in $(sort $(wildcard benchmarks/bench_*.py)); do \
		echo "$$script"; $(BIN)/python "$$script"; done

docs: $(READY)-docs
	$(BIN)/python -m sphinx -b html docs docs/_build/html

clean:
	rm -rf build dist sklmc.egg-info .wheel-test .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache .coverage .cache/mutation demo_output
	rm -rf docs/_build docs/api docs/gallery docs/sg_execution_times.rst
	find sklmc tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +
