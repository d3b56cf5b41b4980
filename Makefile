# make serve         set up, and serve an example that refuses and accepts uploads; PORT=8001 sets the port
# make test          set up, and run all tests, with some combinations of worker and transport
# make test-all      the same with all combinations
# make matrix        try each Python of this machine, and the oldest and newest releases that we support
# make fresh         try make serve and make test on new systems of Debian: needs an hour, and root
# make realworld     install the clients, proxies and the browser that are missing, and test with them
# make soak          test with many clients, reloads and killed workers, for ten minutes a worker
# make check         lint, types, and the links of the pages
# make release-check build dist/, and test the packages in it on each Python
# make docs          build the pages as a site, in docs/_build
# make bench         measure beside stock gunicorn and other servers: half an hour, Linux only
# make clean         remove what these commands have made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# The oldest gunicorn that setup.cfg allows, and two that are too old: the worker must refuse them.
OLDEST := $(shell sed -n 's/^ *gunicorn>=//p' setup.cfg)
GUNICORNS := $(OLDEST:%=$(VENV)/gunicorns/%) $(VENV)/gunicorns/26.2.0 $(VENV)/gunicorns/23.0.0

# The valid and invalid requests of gunicorn's own tests: they are in its sdist.
CORPUS := $(VENV)/corpus/27.0.1

# nox finds Pythons in PATH, and where pyenv has them.
NOX := PATH="$$PATH:$$(echo $$HOME/.pyenv/versions/3.*/bin | tr ' ' :)" $(BIN)/nox

# The oldest releases that docs/frameworks.md names, which Python 3.13 and later can't run.
OLDEST_FRAMEWORKS := flask==3.0.0 werkzeug==3.0.0 django==4.2 falcon==3.1.3 bottle==0.12.25 \
    pyramid==2.0
OLD_PYTHON := $(shell $(PYTHON) -c 'import sys; print("yes" * (sys.version_info < (3, 13)))')
FRAMEWORKS := $(if $(OLD_PYTHON),$(VENV)/frameworks/oldest)

# Most tests wait for a server, not for a core: so three processes, also on fewer cores. Each gets
# tests that are neighbours, because those share servers.
PARALLEL := --numprocesses 3 --dist worksteal

# The client with which the tests resume uploads, in Node and in a browser.
TUS := tus-js-client@4.3.1

.PHONY: serve test test-all matrix fresh realworld soak check release-check docs bench clean

serve: $(VENV)/examples
	$(BIN)/gunicorn -k gunicorn_expect.Worker --threads 8 $(if $(PORT),--bind 127.0.0.1:$(PORT)) \
	    examples.flask_upload:app

test: $(VENV)/dev $(VENV)/fast $(VENV)/node $(GUNICORNS) $(CORPUS) $(FRAMEWORKS)
	$(BIN)/pytest $(PARALLEL)

test-all: $(VENV)/dev $(VENV)/fast $(VENV)/node $(GUNICORNS) $(CORPUS) $(FRAMEWORKS)
	$(BIN)/pytest $(PARALLEL) --matrix all

matrix: $(VENV)/dev $(GUNICORNS)
	$(NOX) $(CELLS)

fresh:
	tests/fresh bookworm
	tests/fresh trixie
	tests/fresh sid

realworld: $(VENV)/dev
	tests/realworld/install
	$(MAKE) $(VENV)/node
	$(BIN)/pytest tests/realworld

soak: $(VENV)/dev
	$(BIN)/pytest tests/soak --soak 600

check: $(VENV)/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/sphinx-build -q -W --keep-going -E -b html docs docs/_build

release-check: $(VENV)/dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(NOX) --session package -- --built dist

docs: $(VENV)/dev
	$(BIN)/python docs/draw.py
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build

bench: $(VENV)/bench
	$(BIN)/python benchmarks/bench.py

clean:
	rm -rf $(VENV) .nox build dist docs/_build *.egg-info uploads

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

# The fast parser has to be compiled. Without a compiler its tests are skipped.
$(VENV)/fast: | $(VENV)/dev
	@if command -v cc >/dev/null && $(PIP) install gunicorn_h1c >$@.log 2>&1; then touch $@; else \
	    echo "Tests of gunicorn's fast parser will be skipped." \
	        "They need a compiler; on Debian or Ubuntu: apt-get install gcc python3-dev"; fi

$(VENV)/node: | $(VENV)/dev
	@if command -v npm >/dev/null && npm install --silent --no-audit --no-fund --ignore-scripts \
	    --prefix $@.part $(TUS) >$@.log 2>&1; then rm -rf $@; mv $@.part $@; else \
	    echo "Tests of tus-js-client will be skipped." \
	        "They need npm; on Debian or Ubuntu: apt-get install nodejs npm"; fi

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
