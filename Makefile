# In an environment with torch; `make develop` brings the rest.

CXX_FILES = $(shell git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

.PHONY: develop lint format test test-cpp bench docs packaging

develop:  ## editable install that compiles again, where needed, at each import
	pip install scikit-build-core 'pybind11>=3' 'cmake>=3.25' ninja
	pip install --no-build-isolation -C build-dir=build/develop -C editable.rebuild=true -e '.[dev,docs]'

lint:
	ruff check .
	ruff format --check .
	mypy
	interrogate --quiet python/fastltc
	clang-format --dry-run -Werror $(CXX_FILES)

format:
	ruff check --fix .
	ruff format .
	clang-format -i $(CXX_FILES)

test:
	pytest

test-cpp:  ## the C++ tests, under sanitizers
	cmake -S . -B build/sanitized -G Ninja -DCMAKE_BUILD_TYPE=Debug -DFASTLTC_BUILD_PYTHON=OFF \
	  -DFASTLTC_BUILD_TESTS=ON -DFASTLTC_SANITIZE=address,undefined
	cmake --build build/sanitized
	ctest --test-dir build/sanitized --output-on-failure

bench:
	pytest benchmarks

docs:  ## the site in build/docs; FASTLTC_DOCS_QUICK=1 for the short form of the notebooks
	sphinx-build -W --keep-going -b html docs build/docs

packaging:  ## gigabytes of torch and some minutes: make packaging TORCH=2.13.0
	python tools/check_packaging.py --torch '$(TORCH)' all
