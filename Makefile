# Everything runs from a virtual environment that these targets make themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.PHONY: demo test lint chaos bench serve wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   a run from start to end on a rented GPU without a GPU (ONCE=1: and stop)"
	@echo "make test   every test        make lint   style and types        make serve   the server"
	@echo "make wheel  what pip installs, in dist/"
	@echo "make chaos  every fault at every step of a run, TRIES=20 times, and that nothing is lost"
	@echo "make bench  how fast it is, next to what people would use instead"

# What the server and the demo need.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $(READY)

# And what tests, lint, chaos and bench need: three times as much.
$(READY_DEV): $(READY) requirements.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $(READY_DEV)

demo: $(READY)
	$(BIN)/python -m comfyui_workflow demo $(if $(ONCE),--once)

serve: $(READY)
	$(BIN)/python app.py

# The tests want a real sshd, a real browser and clients that others wrote. Where they can be installed they
# are; elsewhere those tests say so and are skipped.
test: $(READY_DEV)
	@tests/install_system_packages.sh
	@tests/install_foreign_clients.sh $(BIN)/python $(VENV)/foreign_clients
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

# Every fault at every step, and what was promised. SOAK=500: so many runs on one server amid faults instead.
chaos: $(READY_DEV)
	@tests/install_system_packages.sh
	$(BIN)/python -m tests.chaos $(if $(PARTS),--parts $(PARTS)) $(if $(SOAK),--soak $(SOAK),--tries $(or $(TRIES),20)) $(if $(ONLY),--only "$(ONLY)") $(if $(JOBS),--jobs $(JOBS))

# What it measures should have the machine to itself.
bench: $(READY_DEV)
	@tests/install_system_packages.sh
	$(BIN)/python -m bench --runs $(or $(RUNS),5) --write docs/benchmarks.md

wheel: $(READY_DEV)
	$(BIN)/python -m build --wheel

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
