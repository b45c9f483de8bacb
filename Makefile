# Every target sets itself up: the virtual environment is made, and made again when the
# dependencies change, before anything runs.

PYTHON ?= python3.11
VENV ?= .venv
JOBS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One thread a test process; $(JOBS) processes, of which each takes files in their order.
# Bytecode is kept even where the environment says not to, as tests start processes.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo lint type test test-all coverage docs dist bench sample-data clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | \
	    awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs,eval,train,report,view,dask]'
	touch $@

install: $(INSTALLED)  ## Make .venv with the exact versions of constraints.txt

demo: $(INSTALLED)  ## Upscale the sample scene and measure it against the truth
	mkdir -p demo
	$(BIN)/rsupres upscale sample_data/town_s2.tif demo/town_bicubic_x4.tif \
	    --model bicubic --scale 4 --overwrite
	$(BIN)/rsupres upscale sample_data/town_s2.tif demo/town_x4.tif --scale 4 --overwrite
	$(BIN)/rsupres evaluate demo/town_bicubic_x4.tif sample_data/town_hr.tif \
	    --lr sample_data/town_s2.tif
	$(BIN)/rsupres evaluate demo/town_x4.tif sample_data/town_hr.tif \
	    --lr sample_data/town_s2.tif
	$(BIN)/python sample_data/compare.py demo/town.png \
	    "10 m=sample_data/town_s2.tif" "bicubic=demo/town_bicubic_x4.tif" \
	    "model=demo/town_x4.tif" "truth, 2.5 m=sample_data/town_hr.tif" \
	    --bounds 563480 5392410 563800 5392730
	$(BIN)/rsupres upscale sample_data/town_s2.tif demo/town_x8.tif --scale 8 \
	    --model sgdm-mini --bounds 563480 5392410 563800 5392730 --overwrite
	$(BIN)/rsupres upscale sample_data/town_s2.tif demo/town_map_x8.tif --scale 8 \
	    --model sgdm-mini --bounds 563480 5392410 563800 5392730 --overwrite \
	    --vector-map sample_data/town.osm
	$(BIN)/rsupres rasterize sample_data/town.osm demo/town_map.tif \
	    --like demo/town_map_x8.tif --legend maptiler --overwrite
	$(BIN)/python sample_data/compare.py demo/map.png \
	    "10 m=sample_data/town_s2.tif" "the map=demo/town_map.tif" \
	    "without the map=demo/town_x8.tif" "with the map=demo/town_map_x8.tif" \
	    "truth, 2.5 m=sample_data/town_hr.tif" \
	    --bounds 563480 5392410 563800 5392730
	$(BIN)/rsupres upscale sample_data/town_s2.tif demo/town_alone_x8.tif --scale 8 \
	    --model refdiff-mini --bounds 563480 5392410 563800 5392730 --overwrite
	$(BIN)/rsupres upscale sample_data/town_s2.tif demo/town_reference_x8.tif --scale 8 \
	    --model refdiff-mini --bounds 563480 5392410 563800 5392730 --overwrite \
	    --reference sample_data/town_reference.tif \
	    --change-mask sample_data/town_change.tif
	$(BIN)/python sample_data/compare.py demo/reference.png \
	    "10 m=sample_data/town_s2.tif" "reference, years older=sample_data/town_reference.tif" \
	    "without it=demo/town_alone_x8.tif" "with it=demo/town_reference_x8.tif" \
	    "truth, 2.5 m=sample_data/town_hr.tif" \
	    --bounds 563480 5392410 563800 5392730

lint: $(INSTALLED)  ## Check style and formatting with ruff
	$(BIN)/ruff check rsupres tests sample_data examples docs models
	$(BIN)/ruff format --check rsupres tests sample_data examples docs models

type: $(INSTALLED)  ## Check types with mypy --strict
	$(BIN)/mypy

test: $(INSTALLED)  ## Run the tests that need neither a GPU nor patience
	$(PYTEST) -m "not slow and not gpu" $(PYTEST_ARGS)

test-all: $(INSTALLED)  ## Run all tests, the slow ones too
	$(PYTEST) $(PYTEST_ARGS)

coverage: $(INSTALLED)  ## Run the tests of `make test` and report what they reach
	$(PYTEST) -m "not slow and not gpu" --cov=rsupres --cov-branch \
	    --cov-report=term:skip-covered $(PYTEST_ARGS)

dist: $(INSTALLED)  ## Build sdist and wheel, and run the wheel outside the checkout
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python tests/smoke_wheel.py dist/*.whl

docs: $(INSTALLED)  ## Build the documentation into build/site, without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/site/index.html"

bench: $(INSTALLED)  ## Run the benchmarks and print their figures
	set -e; for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script; done

sample-data: $(INSTALLED)  ## Make sample_data/ again, byte for byte
	$(BIN)/python sample_data/make_sample_data.py sample_data

clean:  ## Remove what the other targets made, .venv too
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	    .hypothesis
	find rsupres tests sample_data -name __pycache__ -type d -prune -exec rm -rf {} +
