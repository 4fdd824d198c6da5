# Everything runs in a virtual environment inside the checkout. It is made in stages, each only
# when something asks for it and only once:
#   base   the package, its ROS 2 (a sourced one, or the wheels) and its tests
#   train  torch: some gigabytes, for `make test` and `make model`
#   viz    matplotlib, for the plots of `make bench`
#   lint   ruff, mypy, codespell, and the linters of ament
# `make test-lowest` makes one of its own in it, of the lowest versions that setup.py allows.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# A stage is bound to the ROS 2 that was sourced when it was made.
ROS := $(or $(ROS_DISTRO),none)
BASE := $(VENV)/.stage-base-$(ROS)
TRAIN := $(VENV)/.stage-train-$(ROS)
VIZ := $(VENV)/.stage-viz-$(ROS)
LINT := $(VENV)/.stage-lint-$(ROS)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
    --constraint $(VENV)/constraints.txt --editable

PYTHON_SOURCES := setup.py benchmarks examples launch test vpr_ros

# The ROS 2 wheels restart Python once with their library path, and mark that in the environment:
# a mark that came from another environment would stop them.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
# ROS 2 writes its logs under HOME, which a bare container may lack.
export HOME := $(or $(HOME),$(CURDIR)/$(VENV))

.PHONY: help demo test test-fast fuzz chaos soak test-lowest lint bench model clean distclean

help:  ## Say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 18

demo: $(BASE)  ## Map a street in winter, localise on it in spring; plots in demo/
	@$(BIN)/vpr demo --output demo
	echo 'next: look at demo/demo.png, and try the commands of docs/tutorial.md, or'
	echo '  source $(BIN)/activate          # in each new terminal: finds the command vpr'
	echo '  vpr map-report demo/map'
	echo '  vpr replay demo/spring.mcap --map demo/map --truth-topic /ground_truth/pose -o demo/out'
	echo '  vpr evaluate --map demo/map --replay demo/out --truth demo/spring.mcap \
	    --truth-topic /ground_truth/pose --html demo/report.html'

# One thread in each process: those of several would wait for each other's cores, twice as long.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8
# Each file runs on one core: its tests share nodes and maps.
BY_FILE := --dist loadfile

test: $(BASE) $(TRAIN)  ## Run all tests (with torch)
	@$(PYTEST) $(BY_FILE)

test-fast: $(BASE)  ## Run the tests that need no torch
	@$(PYTEST) $(BY_FILE) --ignore=test/training

# Each round begins with another seed; EXAMPLES of each kind of file in a round.
MINUTES = 10
EXAMPLES = 2000
fuzz: $(BASE)  ## Read mutated files for MINUTES=10; ends at the first that is not refused well
	@end=$$(($$(date +%s) + 60 * $(MINUTES)))
	rounds=0
	while [ $$(date +%s) -lt $$end ]; do
	    VPR_FUZZ_EXAMPLES=$(EXAMPLES) $(PYTEST) --timeout 3600 -q -p no:cacheprovider \
	        test/test_fuzz.py
	    rounds=$$((rounds + 1))
	    echo "fuzz: $$rounds rounds of $(EXAMPLES) examples of each kind of file: no failure"
	done

# Each five minutes are a node with another seed, from SEED on; LOG has all that was done to it.
# KILLS of each command.
SEED = 1
LOG = chaos.log
KILLS = 20
chaos: $(BASE)  ## Harm the node for MINUTES=10, and kill commands; ends at the first violation
	@VPR_CHAOS_MINUTES=$(MINUTES) VPR_CHAOS_SEED=$(SEED) VPR_CHAOS_LOG='$(abspath $(LOG))' \
	    VPR_CHAOS_KILLS=$(KILLS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --timeout 0 \
	    -p no:cacheprovider test/ros/test_chaos.py test/cli/test_kills.py

HOURS = 24
soak: $(BASE) $(VIZ)  ## Drive the node for HOURS=24; memory and latency, benchmarks/results/soak.png
	@[[ -e demo/map/map.yaml ]] || $(BIN)/vpr demo --output demo
	$(BIN)/python -m benchmarks.node.soak --hours $(HOURS)

test-lowest:  ## Run the same on the lowest versions of all dependencies (with python3.10)
	@mkdir -p $(VENV)
	.ci/lowest $(VENV)/lowest

# The linters of ament list every file that is in order: shown only when one is not.
lint: $(BASE) $(LINT)  ## Check style, types, spelling, and what bandit finds insecure
	@export PATH="$(CURDIR)/$(BIN):$$PATH"
	ruff check .
	mypy
	codespell
	bandit --quiet --configfile pyproject.toml --recursive vpr_ros
	for linter in ament_flake8 ament_pep257; do
	    report=$$($$linter $(PYTHON_SOURCES) 2>&1) || {
	        grep -vE '^(\* .*|checking .*)?$$' <<< "$$report"
	        exit 1
	    }
	    echo "$$linter: no problems found"
	done

# BENCH: arguments, such as BENCH='--only encoder_speed' or BENCH=--quick.
bench: $(BASE) $(VIZ)  ## Measure, against peers in the same run; plots in benchmarks/results/
	@$(BIN)/python -m benchmarks $(BENCH)

# PICTURES: a folder of photographs of scenes, without labels. WEIGHTS: where the teacher starts.
PICTURES = pictures
WEIGHTS = imagenet
model: $(BASE) $(TRAIN)  ## Make the bundled model anew (hours; PICTURES=folder of photographs)
	@train() {
	    $(BIN)/vpr train experiments/$$1.yaml --set data.scenes.folder='$(PICTURES)' "$${@:2}"
	}
	train teacher --set network.weights='$(WEIGHTS)' --set teacher.network='$(WEIGHTS)'
	train features --set teacher.network='$(WEIGHTS)'
	train bundled
	$(BIN)/vpr export runs/bundled/best.ckpt --output models/resnet18_netvlad.onnx

clean:  ## Remove what was built and what the demo wrote
	@rm -rf build dist install log demo .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## Remove the virtual environment too
	@rm -rf $(VENV)

# The extra `ros` comes as wheels, so only where there are some and no ROS 2 is sourced.
$(BASE): setup.py package.xml .ci/make_venv
	@.ci/make_venv $(VENV)
	echo 'set-up: the package and its tests into $(VENV) (a minute or two)'
	$(INSTALL) ".[$$(cat $(VENV)/extras)]"
	$(BIN)/python -c 'import rclpy' 2> /dev/null || {
	    echo '******************************************************************************'
	    echo '* No ROS 2: none is sourced, and there are no wheels for this platform.      *'
	    echo '* The node and its tests are left out; the demo replays offline instead.     *'
	    echo '******************************************************************************'
	} >&2
	touch $@

$(TRAIN): $(BASE)
	@echo 'set-up: torch into $(VENV) (some gigabytes, a few minutes)'
	$(INSTALL) '.[train,umap]'
	touch $@

$(VIZ): $(BASE)
	@echo 'set-up: matplotlib into $(VENV)'
	$(INSTALL) '.[viz]'
	touch $@

$(LINT): $(BASE)
	@echo 'set-up: the linters into $(VENV)'
	$(INSTALL) '.[dev]'
	touch $@
