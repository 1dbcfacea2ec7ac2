# Everything here works on a fresh clone with python3 >= 3.11, pip and make; the first target that needs it builds .venv.
PYTHON ?= python3
BIN := .venv/bin
# Two of pytest's workers suit two cores; `make test JOBS=8` for more.
JOBS ?= auto

.PHONY: demo test test-all lint format bench models acas docs clean

# The package alone, which is all that the demo needs; everything else wants the tools of `.[test]` as well.
.venv/package: pyproject.toml redy/version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: redy needs Python 3.11 or newer; try make PYTHON=python3.11")'
	@# Where Python comes without ensurepip (Debian's python3 does), the pip that is there fills the environment.
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv >/dev/null || \
	  { $(PYTHON) -m venv --clear --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed: .venv/package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# The report of a real reduction: the controller that the project ships, on a part of its domain.
demo: .venv/package
	@mkdir -p build
	$(BIN)/redy reduce models/avoidance.onnx --bounds models/avoidance_close.box.json -o build/avoidance_close.onnx \
	  --html build/avoidance_close.html

# Lint, types, layering and the tests that take seconds.
test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow'

# The same with the slow tests.
test-all: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every script of benchmarks/ in turn; each prints what docs/benchmarks.md quotes.
bench: .venv/installed
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# The shipped networks, made again from nothing (the same bytes on the same platform).
models: .venv/installed
	$(BIN)/python scripts/make_models.py

# Reduces ACAS Xu networks on the boxes of their properties, verifies the results, and proves the properties of both;
# fetches the networks first unless REDY_DATA says where they are. Some ten minutes of two cores;
# `make acas ACAS="--networks 1_1,5_9"` or `make acas ACAS="--properties 3,4"` for less.
ACAS ?=
acas: .venv/installed
	@test -n "$$REDY_DATA" || $(BIN)/python scripts/fetch_acas.py
	$(BIN)/python scripts/acas.py $(ACAS)

# The documentation as a site in build/site; a broken link or a page that is not listed ends it.
docs: .venv/installed
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv build dist
