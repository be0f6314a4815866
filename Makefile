# Every command of the repository. Each target makes its own environment first (.venv, from the locked
# pins) and reuses it afterwards. With another Python: `make run-all PYTHON=python3.12`.
PYTHON ?= python3
FROM :=
ONLY :=
FORCE :=
# The C library of Linux (glibc) gives each large block of memory back to the system when it is freed, and
# TensorFlow asks for it again in the next step: on some systems a quarter of a step went into that.
# These three let a process keep what it has. `make bench` measures what it brings.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 8000000000
export MALLOC_TOP_PAD_ ?= 268435456
# CI checks what is optional, too.
EXTRAS := $(if $(CI),torch jax)
UV := uv==0.13.9
RUN := .venv/bin/python
# What was set on the command line and is not a setting of this file is a parameter of the lessons.
# make escapes a space inside a value; without it, ONLY="ch1 ch2" stays one word.
SPACE := $() $()
PARAMETERS = $(filter-out PYTHON=% FROM=% ONLY=% FORCE=% EXTRAS=%,$(subst \$(SPACE),$(),$(MAKEOVERRIDES)))

.DEFAULT_GOAL := help
.PHONY: help setup setup-torch setup-jax run-all train render plateau ablation prove comparison evaluate publish table bench test refresh lab lint format lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s  %s\n", $$1, $$2}' Makefile

setup: ## make or check the environment in .venv (every other command does so first)
	@$(PYTHON) tools/setup_env.py $(EXTRAS)

setup-torch: ## add PyTorch, which lesson 7 needs; it stays until .venv is deleted
	@$(PYTHON) tools/setup_env.py torch

setup-jax: ## add JAX, which the test of the backends needs; it stays until .venv is deleted
	@$(PYTHON) tools/setup_env.py jax

run-all: setup ## run every lesson at small size; STEPS=20 EPOCHS=2 SEED=1 override, ONLY=ch2_cnn selects
	@$(RUN) tools/run_lessons.py --only "$(ONLY)" $(PARAMETERS)

train: setup ## train for real; MODEL=cnn|ctc SIZE=slim|full BUDGET=20min|300000 OUT=folder RESUME=1 FEED=set|device
	@$(RUN) tools/train.py $(PARAMETERS)

render: setup ## draw a set of captchas once, for train FEED=; PICTURES=100000 OUT=folder SEED=2019 PROCESSES=2
	@$(RUN) tools/render.py $(PARAMETERS)

plateau: setup ## try what gets lesson 3's network past its plateau (minutes); PICTURES=9600
	@$(RUN) tools/plateau.py $(PARAMETERS)

ablation: setup ## try each recipe of lesson 4 on a rendered set (hours); FEED=set PICTURES=100000
	@$(RUN) tools/ablate.py $(PARAMETERS)

prove: setup ## compare captchas drawn on the device with the library's; MODEL=folder COUNT=10000 OUT=file
	@$(RUN) tools/prove.py $(PARAMETERS)

comparison: setup ## train three kinds of heads with three seeds each (hours); PICTURES=100000 SEEDS=2019,2020,2021
	@$(RUN) tools/comparison.py $(PARAMETERS)

evaluate: setup ## count what a network reads right; MODEL=cnn|ctc|path.keras SET=classic-1k|classic-10k|modern-10k...
	@$(RUN) tools/evaluate.py $(PARAMETERS)

publish: setup ## make a trained network the finished one, if it is better; RUNS=first,second of make train
	@$(RUN) tools/publish.py $(PARAMETERS)

table: setup ## write the results table of the README anew
	@$(RUN) tools/results_table.py

bench: setup ## measure feeding, drawing and networks side by side (minutes), for lesson 4; REPEATS=5 OUT=file
	@$(RUN) tools/bench.py $(PARAMETERS)

test: setup ## everything that CI checks
	@$(RUN) tools/check.py

refresh: setup ## run what changed at full size, write outputs and pictures; FORCE=1 runs all, ONLY=ch2_cnn one
	@$(RUN) tools/refresh.py --only "$(ONLY)" $(if $(FORCE),--force)

lab: setup ## open the lessons in JupyterLab
	@JUPYTER_PATH="$(CURDIR)/tools/jupyter" $(RUN) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/notebooks

lint: setup ## check style, layout, and that both sides of each lesson are equal
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) tools/gates.py sync

format: setup ## lay the code out and carry an edit to the other side of its lesson; FROM=py or FROM=ipynb decides
	@$(RUN) -m ruff check --fix --quiet tools tests && $(RUN) -m ruff format --quiet tools tests
	@$(RUN) tools/format.py $(if $(FROM),--from $(FROM))

lock: ## make requirements.lock anew after a change in requirements.txt
	@$(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet $(UV)
	@build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --annotation-style line \
		--custom-compile-command "make lock" requirements.txt --output-file requirements.lock
	@echo "requirements.lock follows requirements.txt; the next make command installs it"

clean: ## delete what the commands made, except .venv
	@rm -rf build .pytest_cache .ruff_cache .hypothesis *.egg-info
