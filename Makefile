# Everything here needs only Python 3.11+ and git. Each environment is made once; its stamp file says
# what is in it, and is older than pyproject.toml or constraints.txt when it has to be brought up to date.

PYTHON ?= python3
VENV := .venv
DOCS_VENV := .venv-docs
BIN := $(VENV)/bin
comma := ,
# Hundreds of processes import the same packages: a shell that forbids .pyc files makes each of them compile them all.
unexport PYTHONDONTWRITEBYTECODE
SPHINXOPTS ?= -W --keep-going -q
# Four files at a time, because tests wait more than they compute: every embedded AWS has its own addresses.
PYTEST_ARGS ?= -n 4 --dist loadfile --no-loadscope-reorder --durations 25

.PHONY: help install demo test test-slow test-live soak stages closes bench-close test-buildx test-essential test-pythons test-lowest
.PHONY: test-oldest check docs bench-peers bench-storm clean
help:
	@echo "make demo     a cluster on the embedded AWS, with real work and no AWS account"
	@echo "make test     the tests"
	@echo "make test-slow  those that take longer and are beside quicker ones of the same kind"
	@echo "make test-live  a job and \`starburst verify\` on your AWS account, for at most \$$5: needs STARBURST_LIVE=1"
	@echo "make soak     hours of bad weather: SOAK_MINUTES=60 SOAK_SEEDS=\"1 2 3\""
	@echo "make stages   a client killed at every stage of a start and a close, one by one"
	@echo "make closes   sessions closed at a random moment: CLOSES=200"
	@echo "make bench-close  how much longer close() takes than AWS bills for, and its calls: 2, 50 and 300 workers"
	@echo "make test-buildx  the buildx builder with a real docker engine: root on Debian"
	@echo "make test-essential  the demo, the command line, and clusters from their start to their end"
	@echo "make test-pythons  the same on the oldest and the newest supported Python that pyenv or PATH has"
	@echo "make test-lowest  the demo and a cluster with the lowest versions that pyproject.toml allows (needs uv)"
	@echo "make test-oldest  what touches Dask's private hooks, on the oldest and the newest release of distributed"
	@echo "make check    ruff and mypy --strict"
	@echo "make docs     the documentation, in docs/_build/html"
	@echo "make bench-peers  StarburstCluster beside dask-cloudprovider, a quarter of an hour a seed (SEEDS=\"0 1\")"
	@echo "make bench-storm  a job on Spot instances that AWS keeps taking back, in virtual time"
	@echo "make install  the package with its extras for the embedded AWS and notebooks"
	@echo "make clean    removes everything that the above made"

# $(call install_into,VENV,EXTRAS): uv when it can be had, because it is ten times as fast; else pip.
define install_into
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null || true
	( test -x $(1)/bin/uv && $(1)/bin/uv pip install --quiet --python $(1)/bin/python -c constraints.txt -e ".[$(2)]" ) \
		|| $(1)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(2)]"
	@touch $@
endef

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "dask_starburst needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(DOCS_VENV)/bin/python:
	$(PYTHON) -m venv $(DOCS_VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install_into,$(VENV),local$(comma)demo)

$(VENV)/.install: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install_into,$(VENV),local$(comma)demo$(comma)image$(comma)notebook)

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install_into,$(VENV),test)

$(VENV)/.check: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install_into,$(VENV),test$(comma)check)

$(DOCS_VENV)/.docs: pyproject.toml constraints.txt | $(DOCS_VENV)/bin/python
	$(call install_into,$(DOCS_VENV),docs)

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install_into,$(VENV),bench)

install: $(VENV)/.install

demo: $(VENV)/.demo
	$(BIN)/starburst demo

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m slow

# On your AWS account, for at most $5: STARBURST_LIVE=1 make test-live
test-live: $(VENV)/.test
	$(BIN)/python -m pytest -n 0 -m live tests/live

soak: $(VENV)/.test
	$(BIN)/python -m pytest -m soak tests/cluster/test_chaos.py

# Each stage on an embedded AWS of its own: two at a time, though they are in one file.
stages: $(VENV)/.test
	$(BIN)/python -m pytest -m soak -n 2 tests/cluster/test_stages.py

# Six embedded AWS at the same time, because sessions mostly wait.
CLOSES ?= 200
closes: $(VENV)/.test
	CLOSES=$(CLOSES) $(BIN)/python -m pytest -m slow -n 6 tests/cluster/test_closing_chaos.py

bench-close: $(VENV)/.test
	$(BIN)/python benchmarks/close.py

# Debian trixie's docker engine is unpacked into a folder for it; see benchmarks/harness/images/engine.py.
test-buildx: $(VENV)/.test
	$(BIN)/python -m pytest -m buildx -n 0 tests/environment/buildx/test_buildx_engine.py

# What has to work on every Python, within a minute: the demo, the command line, a cluster up and down, names, a close.
ESSENTIAL := tests/cluster/test_cluster.py::test_a_cluster_scales_from_none_to_two_to_one_and_leaves_nothing \
	tests/cluster/test_names.py::test_the_cluster_and_the_scheduler_use_the_same_worker_names \
	"tests/cluster/test_exit.py::test_a_client_that_exits_leaves_nothing[close]" tests/cli/test_prices.py tests/test_extras.py
test-essential: $(VENV)/.test
	$(BIN)/starburst demo --workers 1
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(ESSENTIAL)

# Interpreters that are not there are named and skipped, and so is the one of `make test`.
test-pythons:
	$(PYTHON) tools/pythons.py test-essential

# uv finds the lowest versions of what pyproject.toml names; of what that needs in turn, the newest.
test-lowest:
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e ".[test]"
	.venv-lowest/bin/starburst demo --workers 1
	.venv-lowest/bin/python -m pytest $(PYTEST_ARGS) tests/cluster/test_cluster.py -k scales_from_none

# What touches distributed's private hooks (lifecycle.py, cluster.py, runtime/scheduler/handover.py, runtime/scheduler/shuffles.py,
# runtime/scheduler/suspicion.py), on the oldest distributed that we say we work with and on the newest that there is.
HOOKS := tests/cluster/test_cluster.py tests/cluster/test_showcase.py tests/cluster/test_exit.py tests/test_architecture.py \
	tests/runtime/scheduler/test_retirement.py tests/runtime/scheduler/test_shuffles.py
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -e ".[test]" distributed==2026.7.0 dask==2026.7.0
	.venv-oldest/bin/python -m pytest $(PYTEST_ARGS) $(HOOKS)
	.venv-oldest/bin/python -m pip install --quiet --upgrade distributed dask
	.venv-oldest/bin/python -m pytest $(PYTEST_ARGS) $(HOOKS)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS_VENV)/.docs
	$(DOCS_VENV)/bin/python -m sphinx $(SPHINXOPTS) -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Makes the tables and the plot of docs/explanation/beside-dask-cloudprovider.md anew. dask-cloudprovider comes from PyPI
# into an environment of its own.
SEEDS ?= 0
bench-peers: $(VENV)/.bench
	mkdir -p docs/explanation/beside-dask-cloudprovider
	$(BIN)/python -m benchmarks.peers --seeds $(SEEDS) --docs docs/explanation/beside-dask-cloudprovider

# The table and the plot of docs/explanation/spot.md.
bench-storm: $(VENV)/.bench
	$(BIN)/python -m benchmarks.storm --plot docs/explanation/spot-storm.svg

clean:
	rm -rf $(VENV) $(DOCS_VENV) .venv-* build dist *.egg-info docs/_build docs/reference/generated
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis dask-scratch-space dask-worker-space
	find dask_starburst tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
