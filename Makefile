# make env    create .venv with every extra            make demo   compare every level on the embedded sample
# make test   run the tests                            make check  check format, lint and types
# make bench  run the benchmarks                       make docs   build the site, then run the tutorial
# make slow   run the tests that take long: kills, full disks, attacks, real rows
#
# The machine only has to provide python3, git and make: tools run from .venv, and caches are kept inside it.

VENV := $(CURDIR)/.venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.made-from
PYTEST := $(PYTHON) -m pytest --numprocesses auto --maxprocesses 4

unexport PYTHONPATH VIRTUAL_ENV PYTHONHOME PYTHONDONTWRITEBYTECODE
export PYTHONNOUSERSITE := 1
export PIP_NO_CACHE_DIR := 1
export UV_NO_CONFIG := 1
export UV_CACHE_DIR := $(VENV)/cache/uv
export XDG_CACHE_HOME := $(VENV)/cache
export TEXTLADDER_CACHE := $(VENV)/cache/textladder
export HF_HOME := $(VENV)/cache/huggingface
export FASTAI_HOME := $(VENV)/cache/fastai
export MPLCONFIGDIR := $(VENV)/cache/matplotlib

.PHONY: env demo test slow check bench docs

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@python3 -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "textladder needs Python 3.11 to 3.13; python3 is " + sys.version.split()[0])'
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(PYTHON) -m uv pip install --quiet --python $(PYTHON) --constraint constraints.txt --editable '.[train,export,serve,docs,offline,dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(PYTHON) -m textladder.demo runs/demo

test: $(STAMP)
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "not slow"

slow: $(STAMP)
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m slow --ignore tests/crash/test_attacks.py
	$(PYTHON) -m pytest tests/crash/test_attacks.py

check: $(STAMP)
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

docs: $(STAMP)
	$(PYTHON) -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -b html docs build/docs/html
	$(PYTHON) docs/refresh.py --out build/docs/executed
	@echo "The site: build/docs/html/index.html"

bench: $(STAMP)
	$(PYTHON) benchmarks/reading.py
	$(PYTHON) benchmarks/large_file.py $(VENV)/cache/large_file.jsonl --rows 10000 100000
	$(PYTHON) benchmarks/tokenizing.py
	$(PYTHON) benchmarks/baseline.py
	$(PYTHON) benchmarks/zoo.py $(VENV)/cache/zoo.jsonl --levels tfidf lstm
	$(PYTHON) benchmarks/time_to_accuracy.py
	$(PYTHON) benchmarks/transformer_speed.py
	$(PYTHON) benchmarks/ulmfit_speed.py
	$(PYTHON) benchmarks/ulmfit_stages.py
