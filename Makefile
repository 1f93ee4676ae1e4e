# make train: set everything up, then train the main job.  make test: set everything up, then test.
# make extras: the tests of trackers, sweeps, datasets and ONNX.  make docs: the documentation as a site.  make clean-venv starts over; make train ARGS="seed=1 run_dir=runs/mine" passes settings on.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
EXTRAS_VENV := .venv-extras
ARGS ?= env=push method=hnet preset=quick

# Without a GPU the CPU build of torch (scripts/torch_index.py), and a Triton for its interpreter, in
# which the kernels are tested; CUDA's torch brings a Triton of its own.
TORCH := torch==2.13.0
EXTRAS := dev,docs
ifeq ($(shell command -v nvidia-smi),)
EXTRAS := $(EXTRAS),interpret
endif

# PyBullet has wheels for one Python; elsewhere pip would compile it for minutes.
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(PYTHON_VERSION),3.11)
EXTRAS := $(EXTRAS),bullet
else
LEFT_OUT := Python $(PYTHON_VERSION): without PyBullet (engine=bullet), which has wheels for Python 3.11 only
endif

# Images set it for small layers; here every process would compile torch's sources again, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test extras lint docs slow matrix clean-venv

train: $(VENV)/.installed
	$(BIN)/hypercrl train $(ARGS)

# Each worker begins with a half of its own, so that what a file trains for all its tests is trained once.
test: $(VENV)/.installed
	$(BIN)/pytest -q -n 2 --dist worksteal

# What tests skip without packages of the extras, in an environment of their own: they want an older
# Pillow, and .venv stays what users have. A file is one worker's, which trains its runs once.
extras: $(EXTRAS_VENV)/.installed
	$(EXTRAS_VENV)/bin/python -m pytest -q -n 2 --dist loadfile -m extra $$(grep -rl --include='test_*.py' mark.extra tests)

slow: $(VENV)/.installed
	$(BIN)/pytest -q -m slow

# The wheel on every Python here, with the lowest and the newest versions.
matrix: $(VENV)/.installed
	$(BIN)/python scripts/matrix.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The site, into site/; a warning is an error. NO_MKDOCS_2_WARNING silences an announcement.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(if $(LEFT_OUT),@echo "$(LEFT_OUT)")
	$(BIN)/python -m pip install --quiet --no-compile $$($(BIN)/python scripts/torch_index.py) "$(TORCH)"
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[$(EXTRAS)]"
	touch $@

# All of .venv is seen from there, and only what it lacks is installed.
$(EXTRAS_VENV)/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(EXTRAS_VENV)
	echo "import site; site.addsitedir('$(CURDIR)/$(VENV)/lib/python$(PYTHON_VERSION)/site-packages')" \
		> $(EXTRAS_VENV)/lib/python$(PYTHON_VERSION)/site-packages/base.pth
	$(EXTRAS_VENV)/bin/python -m pip install --quiet --no-compile --editable ".[minari,onnx,wandb,trackio,mlflow,sweep]" scipy
	touch $@

clean-venv:
	rm -rf $(VENV) $(EXTRAS_VENV)
