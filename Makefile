# make serve         set up, and serve the example: refuse and accept uploads
# make test          set up, and run all tests, on some cells of the matrix of workers and transports
# make test-all      the same on every cell of it: it takes half an hour
# make realworld     install the clients, proxies and the browser that are missing, and try them
# make soak          a crowd of clients, good and bad, reloads and kills, ten minutes a worker
# make check         lint and types
# make release-check build dist/, and test what is in it on each Python
# make docs          build the pages as a site, in docs/_build
# make bench         measure beside stock gunicorn and other servers: 20 minutes, Linux only

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# The oldest gunicorn that setup.cfg allows, and two that are older: they must be refused.
OLDEST := $(shell sed -n 's/^ *gunicorn>=//p' setup.cfg)
GUNICORNS := $(OLDEST:%=$(VENV)/gunicorns/%) $(VENV)/gunicorns/26.2.0 $(VENV)/gunicorns/23.0.0

# gunicorn's own valid and invalid requests: they are in its sdist.
CORPUS := $(VENV)/corpus/27.0.1

# The other Pythons of this machine: a server of each is tested too.
FIND_PYTHON = for python in python3.$(1) $$HOME/.pyenv/versions/3.$(1).*/bin/python; do \
    $$python -c 'import ensurepip, venv' 2>/dev/null && echo $$python && break; done
PYTHONS := $(foreach minor,10 11 12 13 14 15,\
    $(if $(shell $(call FIND_PYTHON,$(minor))),$(VENV)/pythons/3.$(minor)/ready))

# The oldest releases that docs/frameworks.md names, and Django for Python 3.12 and later.
OLDEST_FRAMEWORKS := flask==3.0.0 werkzeug==3.0.0 django==4.2 falcon==3.1.3 bottle==0.12.25 \
    pyramid==2.0
NEW_PYTHON := $(lastword $(filter-out %/3.10/ready %/3.11/ready,$(PYTHONS)))
FRAMEWORKS := $(VENV)/frameworks/oldest $(if $(NEW_PYTHON),$(VENV)/frameworks/django-6)

# Most tests wait for a server, not for a core. Each process gets neighbours, which share servers.
PARALLEL := --numprocesses 3 --dist worksteal

.PHONY: serve test test-all realworld soak check release-check docs bench clean

serve: $(VENV)/examples
	$(BIN)/gunicorn -k gunicorn_expect.Worker --threads 8 examples.flask_upload:app

test: $(VENV)/dev $(GUNICORNS) $(CORPUS) $(PYTHONS) $(FRAMEWORKS)
	$(BIN)/pytest $(PARALLEL)

test-all: $(VENV)/dev $(GUNICORNS) $(CORPUS) $(PYTHONS) $(FRAMEWORKS)
	$(BIN)/pytest $(PARALLEL) --matrix full

realworld: $(VENV)/dev
	tests/realworld/install
	$(BIN)/pytest tests/realworld

soak: $(VENV)/dev
	$(BIN)/pytest tests/soak --soak 600

check: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

release-check: $(VENV)/dev $(PYTHONS)
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/pytest tests/package/test_package.py --built dist

docs: $(VENV)/dev
	$(BIN)/python docs/draw.py
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build

bench: $(VENV)/bench
	$(BIN)/python benchmarks/bench.py

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info uploads

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or later is needed: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/examples: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[examples]'
	@touch $@

$(VENV)/dev: $(VENV)/examples
	$(PIP) install --editable '.[examples,dev]'
	@touch $@

$(VENV)/bench: $(VENV)/examples
	$(PIP) install --editable '.[bench]'
	@touch $@

$(VENV)/gunicorns/%: | $(BIN)/python
	$(PIP) install --no-deps --target $@ gunicorn==$*

$(VENV)/corpus/%: | $(BIN)/python
	rm -rf $@.part
	$(PIP) download --no-deps --no-binary gunicorn --dest $@.part gunicorn==$*
	tar --extract --file $@.part/gunicorn-$*.tar.gz --directory $@.part --strip-components 3 \
	    gunicorn-$*/tests/requests
	mv $@.part $@

$(VENV)/frameworks/oldest: | $(BIN)/python
	rm -rf $@.part
	$(PIP) install --no-deps --only-binary :all: --target $@.part $(OLDEST_FRAMEWORKS)
	mv $@.part $@

$(VENV)/frameworks/django-6: | $(NEW_PYTHON)
	rm -rf $@.part
	$(dir $(NEW_PYTHON))bin/python -m pip install --quiet --disable-pip-version-check \
	    --target $@.part 'django>=6' sentry-sdk
	mv $@.part $@

$(VENV)/pythons/3.%/ready: setup.cfg | $(BIN)/python
	"$$($(call FIND_PYTHON,$*))" -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
	    'gunicorn[gevent,http2]>=$(OLDEST)' gunicorn_h1c
	@touch $@
