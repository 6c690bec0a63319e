# In an environment with torch; `make develop` brings the rest.

CXX_FILES = $(shell git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')

.PHONY: develop lint format test test-cpp test-sanitized test-threads coverage mutants fuzz faults \
  soak lowest newest bench docs packaging

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

# What follows is told in docs/reliability.md, with what came out.

test-sanitized:  ## pytest of operators, layers and runtime on libraries under ASan and UBSan
	cmake -S . -B build/sanitized -G Ninja -DCMAKE_BUILD_TYPE=Debug -DFASTLTC_CUDA=OFF \
	  -DFASTLTC_BUILD_TESTS=ON -DFASTLTC_SANITIZE=address,undefined
	cmake --build build/sanitized --target _C _runtime
	tools/pytest_of_build.sh build/sanitized tests/ops tests/nn tests/runtime

test-threads:  ## the C++ tests of kernels and streams under TSan, and a minute of threads in Python
	cmake -S . -B build/tsan -G Ninja -DCMAKE_BUILD_TYPE=Debug -DFASTLTC_BUILD_PYTHON=OFF \
	  -DFASTLTC_BUILD_TESTS=ON -DFASTLTC_SANITIZE=thread
	cmake --build build/tsan --target test_ltc test_cfc test_masked_linear test_stream
	ctest --test-dir build/tsan --output-on-failure -R '^(ltc|cfc|masked_linear|stream)\.'
	FASTLTC_SOAK=all pytest tests/soak/test_threads.py

# Where text is put together every call can throw; the compiler counts a branch for each.
TEXTS = '.*(to_string|_text\(|" \+|\+ "|std::string|std::vector|py::|STABLE_).*'

coverage:  ## branches of csrc/core, csrc/runtime and csrc/torch; needs gcovr
	cmake -S . -B build/coverage -G Ninja -DFASTLTC_CUDA=OFF -DFASTLTC_COVERAGE=ON
	cmake --build build/coverage --target _C _runtime
	tools/pytest_of_build.sh build/coverage tests/ops tests/nn tests/runtime
	gcovr -r . build/coverage --filter 'csrc/(core|runtime|torch)/' --exclude-throw-branches \
	  --exclude-unreachable-branches --merge-lines --exclude-branches-by-pattern $(TEXTS) -j 1 \
	  --txt-metric branch --print-summary --txt

SANITIZED = c++ -std=c++20 -O0 -fsanitize=address,undefined -fno-sanitize-recover=all -Icsrc -Itests \
  -DFASTLTC_HAVE_BASELINE=1

mutants:  ## of the checks: those that no test notices are printed
	python tools/mutate.py csrc/core/synapse_check.cpp --command 'for f in \
	  csrc/cpu/frame/isa tests/core/test_synapse_check tests/support/check; do \
	  [ -f $$f.o ] || $(SANITIZED) -c $$f.cpp -o $$f.o; done && $(SANITIZED) $$(find . -name "*.o") \
	  csrc/core/synapse_check.cpp -o t && timeout 60 ./t'
	python tools/mutate.py csrc/torch/checks.h csrc/torch/sequence_operator.h \
	  csrc/torch/ltc_operator.h csrc/torch/cfc_operator.h csrc/torch/masked_linear_operator.h \
	  --only 'check|that\(|found|bad|expected' --command 'cmake -S . -B b -G Ninja \
	  -DFASTLTC_CUDA=OFF -DFASTLTC_COVERAGE=ON && cmake --build b --target _C _runtime && \
	  tools/pytest_of_build.sh b -q -x tests/ops/test_bad_arguments.py tests/ops/test_raw_operators.py \
	  tests/ops/test_impossible_sizes.py tests/ops/test_stacked_layers.py tests/ops/test_ltc_values.py \
	  tests/ops/test_masked_linear.py tests/nn/test_lengths.py tests/nn/test_resets.py'

FUZZ_SECONDS = 1800

fuzz:  ## half an hour for each reader of hostile files; needs atheris
	for target in model_file network c_source table toml npz; do \
	  python tests/fuzz/fuzz.py $$target --seconds $(FUZZ_SECONDS) || exit; done

faults:  ## every allocation and system call of a save fails, or is the last; needs strace
	FASTLTC_FAULTS=all pytest -rP tests/faults

soak:  ## a million steps of sessions, 100,000 of training, 50,000 errors, a minute of threads
	FASTLTC_SOAK=all pytest -rP tests/soak

lowest:  ## the tests on the lowest versions allowed; that of torch may come with CUDA, gigabytes
	tools/versions.sh tests

PYTHON = python3

newest:  ## the tests on the newest versions, with any Python: make newest PYTHON=python3.13
	tools/versions.sh --newest --python $(PYTHON) tests

bench:
	pytest benchmarks

docs:  ## the site in build/docs; FASTLTC_DOCS_QUICK=1 for the short form of the notebooks
	sphinx-build -W --keep-going -b html docs build/docs

packaging:  ## gigabytes of torch and some minutes: make packaging TORCH=2.13.0
	python tools/check_packaging.py --torch '$(TORCH)' all
