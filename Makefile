# Every verb makes and updates the virtual environment by itself.
PYTHON ?= python3
VENV ?= .venv
# The TFX line, 1.16 or 1.21. Empty: the newest that fits this machine.
LINE ?=
# Passed on to `marquee run`, `marquee bench`, `bench-serving`, `bench-scale`, `bench-windows` and pytest.
ARGS ?=
# Prefix of a command that runs it where the other TFX line fits, over this same folder.
OTHER_LINE_RUNNER ?=
OTHER_VENV ?= .venv-other
# Prefix of a command that runs it, as root, in the Debian release that kubeflow/Dockerfile starts from.
IMAGE_RUNNER ?= $(OTHER_LINE_RUNNER)
# A server to run the contract suite against, and its models; without: the local server, started for the purpose.
ADDRESS ?=
REST_ADDRESS ?=
MODELS ?=

ENVIRONMENT = $(PYTHON) -I pipeline/environment.py
# Two processes, each with whole files, whose tests share what is slow to make. Long files come first; see conftest.
IN_PARALLEL = -n 2 --dist loadfile --no-loadscope-reorder
FAST = not slow and not real_data and (not end_to_end or small_run)

.DEFAULT_GOAL := help
.PHONY: help setup run bench bench-serving bench-scale bench-windows test lint test-fast test-serving test-other-line \
  check-manifests check-image clean

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make or update the virtual environment only
	@$(ENVIRONMENT) set-up --venv $(VENV) $(if $(LINE),--line $(LINE))

run: setup  ## get MovieLens-100K and run the pipeline, e.g. ARGS="--set model.family=popularity"
	$(VENV)/bin/marquee data movielens-100k
	$(VENV)/bin/marquee run $(ARGS)

bench: setup  ## measure a cold and a cached run on MovieLens-100K, and how fast the transformer trains
	$(VENV)/bin/marquee bench $(ARGS)

bench-serving: setup  ## measure the model server beside the direct call of the model, after `make run`
	$(VENV)/bin/marquee bench-serving $(ARGS)

bench-scale: setup  ## measure how each component grows with the log, e.g. ARGS="--sizes 100000,1000000"
	$(VENV)/bin/marquee bench-scale $(ARGS)

bench-windows: setup  ## measure what continuous training saves, e.g. ARGS="--families two_tower,transformer"
	$(VENV)/bin/marquee bench-windows $(ARGS)

test: lint  ## check the code and run every test, e.g. ARGS="-k metrics"
	$(VENV)/bin/python -m pytest $(IN_PARALLEL) $(ARGS)

lint: setup  ## check style, format and types
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

test-fast: setup  ## run the fast tests and one small end-to-end run
	$(VENV)/bin/python -m pytest $(IN_PARALLEL) -m "$(FAST)" $(ARGS)

test-serving: setup  ## check a server's contract, e.g. ADDRESS=host:8500 REST_ADDRESS=host:8501 MODELS=/tmp/models
	$(VENV)/bin/python -m pytest tests/serving_contract $(if $(ADDRESS),--serving-address $(ADDRESS)) \
	  $(if $(REST_ADDRESS),--serving-rest-address $(REST_ADDRESS)) \
	  $(if $(MODELS),--serving-models $(abspath $(MODELS))) $(ARGS)

test-other-line: setup  ## the same on the other TFX line, here or through OTHER_LINE_RUNNER
	@line=$$($(ENVIRONMENT) other-line --venv $(VENV)) || exit; \
	for runner in "" $(if $(OTHER_LINE_RUNNER),"$(OTHER_LINE_RUNNER)"); do \
	  why=$$($$runner $(ENVIRONMENT) check --line $$line 2>&1); \
	  case $$? in \
	    0) exec $$runner $(MAKE) --no-print-directory test-fast VENV=$(OTHER_VENV) LINE=$$line ;; \
	    3) ;; \
	    *) echo "Cannot check for TFX $$line: $$runner failed. $$why" >&2; exit 1 ;; \
	  esac; \
	done; \
	echo "Skipped the tests on TFX $$line, which does not fit here (OTHER_LINE_RUNNER may name a way): $$why"

check-manifests: setup  ## check what kubeflow/ holds for Kubernetes, and the CI workflow
	$(VENV)/bin/python -m pytest tests/manifests $(ARGS)

check-image:  ## run the build instructions of kubeflow/Dockerfile without Docker, through IMAGE_RUNNER
	$(IMAGE_RUNNER) python3 -I pipeline/image_check.py kubeflow/Dockerfile --prefix $(abspath build/image)

clean:  ## remove the environments and caches; data/ and runs/ stay
	rm -rf $(VENV) $(OTHER_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
