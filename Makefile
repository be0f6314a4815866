# Every command of the repository. Those that run Python make its environment first, .venv with packages at the
# versions of requirements.lock, and use it from then on. With another Python: `make run-all PYTHON=python3.12`
# (.venv keeps the Python that it was made with; delete the folder to change that).
PYTHON ?= python3
FILE :=
LESSON :=
# TensorFlow uses oneDNN by default only where the processor has AVX-512; with AVX2 it pays as well: 205
# instead of 147 captchas a second in training, medians of six runs in turns.
export TF_ENABLE_ONEDNN_OPTS ?= 1
# CI checks what is optional, too; what was added once is kept up to date.
EXTRAS := $(if $(CI),torch jax onnx site)
INSTALLED := .venv/.installed $(sort $(EXTRAS:%=.venv/.%) $(wildcard .venv/.torch .venv/.jax .venv/.onnx .venv/.site))
UV := uv==0.13.9
PY := PYTHONPATH="$(CURDIR)" .venv/bin/python
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check
SPHINX = $(PY) -m sphinx -c tools/site -d build/doctrees --fresh-env --quiet --fail-on-warning --keep-going
# What was set on the command line goes to the tool as --name=value, whatever is in the value, and HELP=1 as --help.
# A command without options begins with $(call takes,) and one with few with $(call takes,NAMES): anything else that
# is set ends it.
GIVEN := $(foreach x,$(.VARIABLES),$(if $(findstring command line,$(origin $x)),$x))
quoted = '$(subst ','\'',$1)'
lower = $(shell echo $1 | tr A-Z a-z)
PARAMETERS = $(foreach x,$(filter-out PYTHON CI EXTRAS,$(GIVEN)),$(if $(filter HELP,$x),--help,$(call quoted,--$(call lower,$x)=$($x))))
takes = $(foreach x,$(filter-out PYTHON CI EXTRAS $1,$(GIVEN)),$(error \
	$@: $x is not an option; it takes $(or $1,none)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-torch setup-jax setup-onnx setup-site run-all read demo site links train tune study evaluate publish export table test refresh lab lint format lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s  %s\n", $$1, $$2}' Makefile

setup: $(INSTALLED) ## make the environment in .venv (commands that need it do so first)

setup-torch: .venv/.torch ## add PyTorch, which lesson 7 needs

setup-jax: .venv/.jax ## add JAX, which the test of the backends needs

setup-onnx: .venv/.onnx ## add ONNX, in which `make export` writes

setup-site: .venv/.site ## add Sphinx, with which `make site` writes

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("set-up: this is Python %d.%d, but the lessons need 3.11 to 3.13; name another one, as in `make run-all PYTHON=python3.12`" % v)'
	@$(PYTHON) -m venv --clear .venv || { echo "set-up: Python could not make a virtual environment; on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }

.venv/.installed: .venv/bin/python requirements.lock pyproject.toml
	@echo "set-up: installing the pinned packages into .venv (about 3 minutes and 2.5 GB the first time)"
	@$(PIP) -c requirements.lock -e ".[lessons,checks]"
	@# Matplotlib lists the fonts when first imported, and warns where that is slow: not in a lesson.
	@MPLCONFIGDIR=.venv/var/matplotlib $(PY) -c "import matplotlib.font_manager"
	@command -v dot >/dev/null || echo "set-up: Graphviz's dot is missing, so lessons will show the committed diagrams"
	@touch $@

.venv/.torch .venv/.jax .venv/.onnx .venv/.site: .venv/.%: .venv/.installed
	@echo "set-up: adding $* to .venv (0.5 to 1 GB, onnx and site less; torch on Linux several with CUDA's)"
	@$(PIP) -c requirements.lock -e ".[$*]"
	@touch $@

run-all: setup ## run every lesson at small size; STEPS=20 EPOCHS=2 SEED=1 override, ONLY=ch2_cnn selects
	@$(PY) -m tools.run_lessons $(PARAMETERS)

read: setup ## read a captcha; FILE=picture.png LENGTH=4 ALPHABET=0123456789, MODEL=mine.onnx with a network of your own
	@$(call takes,FILE MODEL LENGTH ALPHABET HELP)$(PY) -m captcha_reader \
		$(foreach x,$(filter MODEL LENGTH ALPHABET,$(GIVEN)),--$(call lower,$x)="$$$x") $(if $(FILE),"$$FILE",--help)

demo: setup ## open a page on this machine that reads captchas in the browser; PORT=8000
	@$(PY) -m tools.demo $(PARAMETERS)

site: setup .venv/.site ## write the website to build/site: the lessons, and the page of make demo
	@$(call takes)rm -rf build/pages build/site && mkdir -p build/pages
	@$(SPHINX) -b html build/pages build/site
	@$(PY) -c "from pathlib import Path; from tools import demo; demo.build(Path('build/site/demo'))"
	@echo "site: put build/site on a web server, or open build/site/index.html (the demo needs a server)"

links: setup .venv/.site ## check the links to other sites
	@$(call takes)rm -rf build/pages && mkdir -p build/pages
	@$(SPHINX) -b linkcheck build/pages build/links

train: setup ## train for real; MODEL=ctc|cnn|pytorch SIZE=slim|full BUDGET=20min|300000 OUT=folder
	@$(PY) -m tools.train $(PARAMETERS)

tune: setup .venv/.onnx ## learn captchas of your own from labelled pictures; FOLDER=my_captchas PATTERN='*_{text}' FROM=ctc|nothing
	@$(PY) -m tools.tune $(PARAMETERS)

study: setup ## measure what lessons show (minutes to hours); WHAT=bank|ablation|heads|kinds|tuning
	@$(PY) -m tools.study $(PARAMETERS)

evaluate: setup ## count what a network reads right; MODEL=cnn|ctc|path.keras SET=classic-1k|classic-10k|modern-10k...
	@$(PY) -m tools.evaluate $(PARAMETERS)

publish: setup .venv/.onnx ## make a trained network the finished one, if it is better; RUN=folder of make train
	@$(PY) -m tools.publish $(PARAMETERS)

export: setup .venv/.onnx ## write a CTC network as ONNX beside it; MODEL=ctc|path.keras ALPHABET=0123456789
	@$(PY) -m tools.export $(PARAMETERS)

table: setup ## write the tables of the READMEs anew: results, minutes, badges
	@$(call takes)$(PY) -m tools.publish

test: setup ## everything that CI checks; LESSON=ch3_ctc what concerns that lesson
	@$(call takes,LESSON)$(PY) -m ruff check . && $(PY) -m ruff format --check . \
		&& $(PY) -m pytest -n 2 --dist worksteal $(if $(LESSON),-k "$(LESSON)")

refresh: setup ## run what changed at full size, write outputs and pictures; FORCE=1 runs all, ONLY=ch2_cnn one
	@$(PY) -m tools.refresh $(PARAMETERS)

lab: setup ## open the lessons in JupyterLab
	@$(call takes)JUPYTER_PATH="$(CURDIR)/tools/jupyter" JUPYTER_CONFIG_PATH="$(CURDIR)/tools/jupyter" \
		$(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" \
		--LabApp.default_url=/lab/tree/notebooks/ch0_one_page.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

lint: setup ## check style, layout, and the rules for lessons that need no run
	@$(call takes)$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m tools.gates

format: setup ## lay the code out and carry an edit to the other side of its lesson; FROM=py or FROM=ipynb decides
	@$(PY) -m ruff check --fix --exit-zero --quiet captcha_reader tools tests && $(PY) -m ruff format --quiet captcha_reader tools tests
	@$(PY) -m tools.format $(PARAMETERS)

# CUDA's packages, which PyTorch brings on Linux, stay out: the torch that is installed decides on them.
lock: ## make requirements.lock anew after a change in pyproject.toml
	@$(call takes)$(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet $(UV)
	@build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --annotation-style line --all-extras \
		--custom-compile-command "make lock" pyproject.toml --output-file requirements.lock
	@grep -Ev '^(cuda|nvidia|triton)' requirements.lock > build/lock && mv build/lock requirements.lock
	@echo "requirements.lock follows pyproject.toml; the next make command installs it"

clean: ## delete what the commands made, except .venv and trainings
	@$(call takes)test ! -d build || find build -mindepth 1 -maxdepth 1 ! -name train ! -name study -exec rm -rf {} +
	@rm -rf .pytest_cache .ruff_cache .hypothesis *.egg-info
