#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, a CUDA toolkit and a CUDA build of torch in the active
# environment: builds and installs fastltc into it, runs the GPU tests, compute-sanitizer and the
# GPU benchmarks, and ends with a table. Writes cuda-NAME.json and cuda-NAME-compiled.json.
#
#     tools/gpu_check.sh NAME [STEP...]     NAME such as h200; without steps all of them:
#
#     build       install for the architecture of this GPU
#     tests       pytest -m cuda
#     memcheck    small cases of every plan under compute-sanitizer
#     racecheck   the same
#     benchmarks  all rows but those of
#     compiled    torch.compile of ncps, which compiles for minutes
#
# Steps may be given to one command each: they leave what the next ones need.
#
# A machine without network: besides torch and the toolkit, building takes cmake >= 3.25, ninja,
# scikit-build-core and pybind11 >= 3, running what pyproject.toml names under `dependencies` (ncps,
# pooch and imagehash are what environments lack most often), pytest, hypothesis and
# pytest-benchmark. On a machine of the same platform and Python that has a network, collect the
# wheels of those that are missing, and of what they need in turn, in a folder:
#     pip download --only-binary=:all: --no-deps -d DIR ncps pooch platformdirs imagehash pywavelets
# and set FASTLTC_WHEELS=DIR there (an empty folder where nothing is missing): nothing then asks a
# package index, and a package that is missing still is named.
#
# Environment:
#     PYTHON                 interpreter (python, or python3)
#     FASTLTC_WHEELS         folder of wheels to install first; no network is used
#     FASTLTC_RESULTS        folder for the JSON files (benchmarks/results)
#     FASTLTC_STEP_SECONDS   when a step is ended and counts as failed (590)
# shellcheck disable=SC2317  # the steps are called by name
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

all_steps=(build tests memcheck racecheck benchmarks compiled)
usage="usage: tools/gpu_check.sh NAME [${all_steps[*]}]"
name=${1:?$usage}
shift
steps=("$@")
[[ $# -gt 0 ]] || steps=("${all_steps[@]}")
for step in "${steps[@]}"; do
  if [[ " ${all_steps[*]} " != *" $step "* ]]; then
    printf 'no step %s; %s\n' "$step" "$usage" >&2
    exit 2
  fi
done

python=${PYTHON:-$(command -v python || command -v python3)}
results=${FASTLTC_RESULTS:-benchmarks/results}
limit=(timeout --kill-after=10 "${FASTLTC_STEP_SECONDS:-590}")
logs=$(mktemp -d)
touch "$logs/start"
# CMake finds nvcc there too.
export PATH=$PATH:/usr/local/cuda/bin
export FASTLTC_REQUIRE_CUDA=1

check_packages() {
  "$python" - <<'PROGRAM'
import importlib.metadata
import importlib.util
import shutil
import sys

modules = {
    **{name: name for name in ("ncps", "matplotlib", "networkx", "click", "rich", "pooch")},
    **{name: name for name in ("imagehash", "safetensors", "pytest", "hypothesis", "cmake")},
    **{"sklearn": "scikit-learn", "PIL": "pillow", "pytest_benchmark": "pytest-benchmark"},
    **{"scikit_build_core": "scikit-build-core", "pybind11": "pybind11", "ninja": "ninja"},
    **{"torch": "torch (a CUDA build)"},
}
# Either may come from the system.
for program in ("cmake", "ninja"):
    if shutil.which(program):
        del modules[program]
missing = [name for module, name in modules.items() if importlib.util.find_spec(module) is None]
if "pybind11" not in missing and int(importlib.metadata.version("pybind11").split(".")[0]) < 3:
    missing.append("pybind11 >= 3")
if missing:
    sys.exit(f"missing: {', '.join(missing)}; put their wheels into FASTLTC_WHEELS")
PROGRAM
}

build() {
  local architecture options
  architecture=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())') ||
    return
  options=(--config-settings=cmake.define.FASTLTC_CUDA=ON
    --config-settings=cmake.define.FASTLTC_CUDA_ARCHITECTURES="$architecture")
  if [[ -n ${FASTLTC_WHEELS:-} ]]; then
    local wheels=("$FASTLTC_WHEELS"/*.whl)
    if [[ -e ${wheels[0]} ]]; then
      "$python" -m pip install --no-index --no-deps "${wheels[@]}" || return
    fi
    check_packages || return
    "${limit[@]}" "$python" -m pip install --no-index --no-deps --no-build-isolation \
      --force-reinstall "${options[@]}" . || return
  else
    "${limit[@]}" "$python" -m pip install "${options[@]}" '.[test,bench]' || return
  fi
  "$python" -m fastltc.info
}
tests() {
  local files
  mapfile -t files < <(grep -rlw --include='test_*.py' 'mark\.cuda' tests)
  "${limit[@]}" "$python" -m pytest -q -m cuda "${files[@]}"
}

# Without torch's cache each tensor is an allocation of its own, whose ends memcheck knows. The
# sanitizers slow kernels down a hundredfold, hence no large cases.
sanitize() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 "${limit[@]}" compute-sanitizer --tool "$1" \
    --error-exitcode 1 --target-processes all "$python" -m pytest -q tests/ops/test_*_cuda.py \
    -k "test_values_of_every_plan and not warp- and not big"
}
memcheck() { sanitize memcheck; }
racecheck() { sanitize racecheck; }

measure() {
  mkdir -p "$results" && "${limit[@]}" "$python" -m pytest -q -m cuda benchmarks/bench_cuda.py \
    -k "$2" --benchmark-json="$1"
}
benchmarks() { measure "$results/cuda-$name.json" "not compiled"; }
compiled() { measure "$results/cuda-$name-compiled.json" compiled; }

failed=0
table=()
for step in "${steps[@]}"; do
  start=$SECONDS
  printf '\n=== %s\n' "$step"
  "$step" 2>&1 | tee "$logs/$step.log"
  case $? in
    0) outcome=passed ;;
    124 | 137) outcome=TIMEOUT ;;
    *) outcome=FAILED ;;
  esac
  [[ $outcome == passed ]] || failed=1
  summary=$(grep -E '(passed|failed|errors? in |ERROR SUMMARY|RACECHECK SUMMARY|missing:)' "$logs/$step.log" |
    tail -1)
  table+=("$(printf '%-12s %-8s %5d s   %s' "$step" "$outcome" $((SECONDS - start)) "$summary")")
  # An older installation must not be taken for this one.
  [[ $step == build && $failed == 1 ]] && break
done

printf '\n%s\n' "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null)"
printf '%s\n' "${table[@]}"
for file in "$results/cuda-$name.json" "$results/cuda-$name-compiled.json"; do
  # Neither those of an earlier run, nor the empty file of an interrupted one.
  [[ -s $file && $file -nt $logs/start ]] && "$python" benchmarks/report.py "$file"
done
exit "$failed"
