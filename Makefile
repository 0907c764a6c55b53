# Two commands matter: `make demo` and `make test`. Everything that they need they set up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo demo-pictures test check format bench campaign campaign-uplink day detect-report rain-check clean

help:
	@echo "make demo    a recorded earthquake and rainstorm through the whole gateway, in two minutes"
	@echo "make demo-pictures    the README's pictures of it, made anew in docs/images"
	@echo "make test    everything that is checked: style, types, tests"
	@echo "make check   style and types only"
	@echo "make bench   speed and memory, as ratios"
	@echo "make campaign    1,000 random faults in the middle of alerts, a quarter of an hour"
	@echo "make campaign-uplink  300 faults at random between station and hub: is anything lost?"
	@echo "make day     a day of a station in fast motion, with every outage: is anything missing?"
	@echo "make detect-report    detection on the recordings, written to docs/detection.md"
	@echo "make rain-check       level times of every rain series against exact arithmetic"
	@echo "make clean   remove what make has made"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt tools/setup
	tools/setup $(PYTHON) $(VENV)
	@touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: check
	$(BIN)/pytest -n auto

demo: setup
	$(BIN)/gateway demo

demo-pictures: setup
	$(BIN)/gateway demo --plain --seconds 36 --picture docs/images/demo.svg
	$(BIN)/gateway demo --plain
	cp .demo/earthquake.png docs/images/demo-trace.png

bench: setup
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench

FAULTS ?= 1000
SEED ?= 1
STATIONS ?= 4
campaign: setup
	$(BIN)/python -m tests.campaign --faults $(FAULTS) --seed $(SEED) --stations $(STATIONS)

campaign-uplink: setup
	$(BIN)/python -m tests.uplink.campaign

day: setup
	$(BIN)/python -m tests.uplink.day

detect-report: setup
	PYTHONPATH=. $(BIN)/python tools/detect_report.py

rain-check: setup
	$(BIN)/python tools/rain_check.py tests/data/rain $(wildcard $(GATEWAY_CORPUS)/rain)

clean:
	rm -rf $(VENV) .campaign .demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
