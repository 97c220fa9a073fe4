# The contributor's whole vocabulary.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check lint bench clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.ready  ## the main job on real data: killed half-way, resumed, compared
	$(BIN)/skybatch demo

test: $(VENV)/.ready  ## the whole suite
	$(BIN)/python -m pytest -q

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint  ## lint, types and the quick tests, under a minute
	$(BIN)/python -m pytest -q -m 'not full'

bench: $(VENV)/.ready  ## every benchmark, ours and the rival's interleaved
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info
