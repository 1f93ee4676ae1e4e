# make train: set everything up, then train the main job.  make test: set everything up, then test.
# make docs: the documentation as a site.  make clean-venv starts over; make train ARGS="seed=1 run_dir=runs/mine" passes settings on.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?= env=push method=hnet preset=quick

# torch's plain build for Linux brings 3 GB of CUDA; without a GPU the CPU build of the same version
# is preferred (its local version 2.13.0+cpu sorts above 2.13.0).
TORCH := torch==2.13.0
EXTRAS := dev,docs,bullet
ifeq ($(shell command -v nvidia-smi),)
TORCH_INDEX := --extra-index-url https://download.pytorch.org/whl/cpu --retries 1
# CUDA's torch brings a Triton of its own; without it the kernels are tested in Triton's interpreter.
EXTRAS := dev,docs,bullet,interpret
endif

.PHONY: train test lint docs slow clean-venv

train: $(VENV)/.installed
	$(BIN)/hypercrl train $(ARGS)

test: $(VENV)/.installed
	$(BIN)/pytest -q -n 2

slow: $(VENV)/.installed
	$(BIN)/pytest -q -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The site, into site/; a warning is an error. NO_MKDOCS_2_WARNING silences an announcement.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH_INDEX) "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]"
	touch $@

clean-venv:
	rm -rf $(VENV)
