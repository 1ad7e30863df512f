# make demo   set everything up, then simulate, fit, predict an unseen section and evaluate (written to demo/)
# make test   set everything up, then run the tests
# make test-kernels   the numeric tests again, with the instructions of older processors and with two threads
# make fuzz   damaged files of every kind, for FUZZ_MINUTES minutes (5): each must be read or refused in our own words
# make lint   ruff and mypy      make docs   the documentation, in docs/_build/html
# make clean  remove all of it
#
# Needs Python >= 3.11 and pip; PYTHON=/path/to/python chooses one. The environment is built in .venv once, and brought
# up to date when the requirements change. CONSTRAINTS= (empty) takes the newest releases instead of the known-good set.

VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
REQUIREMENTS := pyproject.toml hist2scrna/__init__.py $(CONSTRAINTS)
INSTALL = $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[leiden]'
IS_RECENT := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	if $$p $(IS_RECENT) >/dev/null 2>&1; then echo $$p; break; fi; done)

.PHONY: demo test test-kernels fuzz lint docs clean

demo: $(VENV)/.runtime
	$(BIN)/hist2scrna demo --out demo

# Two processes: files of tests side by side, one thread each.
test: $(VENV)/.development
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The kernels of PyTorch, oneDNN and MKL are chosen one by one.
test-kernels: $(VENV)/.development
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "numeric and not slow"
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 OMP_NUM_THREADS=2 $(BIN)/python -m pytest -m "numeric and not slow"

FUZZ_MINUTES ?= 5

fuzz: $(VENV)/.development
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzzing --minutes $(FUZZ_MINUTES)

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.documentation
	$(BIN)/sphinx-build -W -n --keep-going -b html docs docs/_build/html
	$(BIN)/python -m pytest tests/docs/test_site.py

clean:
	rm -rf $(VENV) demo dist docs/_build docs/generated docs/tutorials .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find benchmarks docs hist2scrna tests -name __pycache__ -prune -exec rm -rf {} +

# Debian's python3 comes without ensurepip: there, the pip of the machine puts the first pip into the environment.
# Dependency groups need pip >= 25.1.
$(VENV)/.created:
	@test -n "$(PYTHON)" && $(PYTHON) $(IS_RECENT) 2>/dev/null || { \
		echo "hist2scrna needs Python >= 3.11; tried: $(or $(PYTHON),$(CANDIDATES))." >&2; \
		echo "Name the one to use: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
		$(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.runtime: $(VENV)/.created $(REQUIREMENTS)
	@echo "Installing hist2scrna and what it needs into $(VENV); the first time takes some minutes."
	$(INSTALL)
	@touch $@

$(VENV)/.development: $(VENV)/.created $(REQUIREMENTS)
	@echo "Installing hist2scrna and the tools for tests into $(VENV); the first time takes some minutes."
	$(INSTALL) --group dev --group test
	@touch $@ $(VENV)/.runtime

$(VENV)/.documentation: $(VENV)/.created $(REQUIREMENTS)
	@echo "Installing hist2scrna and Sphinx into $(VENV); the first time takes some minutes."
	$(INSTALL) --group doc --group test
	@touch $@ $(VENV)/.runtime
