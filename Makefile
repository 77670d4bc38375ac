# `make help` lists the targets. The environment is made once, by the first target that needs it.
PYTHON ?= python3
PORT ?= 8501
TEST_PROCESSES ?= 2
TEST_THREADS ?= 1
SUDO ?= $(shell test "$$(id -u)" = 0 || echo sudo)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := $(CURDIR)
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help setup check repro dashboard browser test lint demo-kit lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv/.ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Loupe needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "Installing the packages of requirements.lock into .venv (2 to 5 minutes, once)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@

setup: .venv/.ready  ## Make .venv and install the pinned packages (every other target does this when it must)

repro: setup  ## Rebuild everything: prepare, train, generate, measure, select (dvc repro)
	@python -m loupe.cli check --fast
	@dvc repro

dashboard: setup  ## Serve the review at http://127.0.0.1:8501 (PORT=... for another port)
	@streamlit run dashboard/server.py --server.address 127.0.0.1 --server.port $(PORT)

check: setup  ## Try the parameters on this machine: is all there, time per step, memory, time of the whole run
	@python -m loupe.cli check

lint: setup
	@ruff check . && ruff format --check . && vulture

test: setup lint  ## Check style and run the whole test suite (TEST_PROCESSES=... for more than 2 at a time)
	@OMP_NUM_THREADS=$(TEST_THREADS) python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

browser:  ## Install Chromium for the browser tests (from Debian's or Ubuntu's packages)
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  if command -v apt-get >/dev/null; then \
	    $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends chromium; \
	  else echo "Install Chromium or Google Chrome with this system's package manager."; exit 1; fi

demo-kit: setup  ## Train the demo's base model and scorers anew, from code alone (up to 3 hours on 2 cores)
	@python -m loupe.demo.kit

lock: setup  ## Write requirements.lock from what .venv holds
	@python -m pip freeze --exclude-editable \
	  | sed -E '/^(nvidia|cuda|triton)/ s/$$/ ; sys_platform == "linux"/' > requirements.lock

clean:  ## Remove results and the work store, keep .venv and the demo kit
	@rm -rf .work data/dataset data/latents data/reference data/checkpoints data/samples data/evaluation \
	  data/confirmation data/export dvc_plots
