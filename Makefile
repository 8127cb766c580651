# `make demo` and `make test` are all that a newcomer needs; both make .venv and install what they use.
PYTHON ?= python3
BIN := .venv/bin
# a process for each core, so one thread in each
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

.PHONY: demo dev test check clean

demo: .venv/.export
	$(BIN)/mobileface make recipes/demo.yaml --out runs/demo

dev: .venv/.dev

test: .venv/.dev
	$(PYTEST)

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# A CPU build of torch is enough; README.md says how to choose one.
.venv/.export: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[export]'
	touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
