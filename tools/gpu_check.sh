#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, a CUDA toolkit and a CUDA build of torch in the active
# environment: builds, runs the GPU tests, compute-sanitizer and the GPU benchmarks, and ends with a
# table. Writes benchmarks/results/cuda-NAME.json.
#
#     tools/gpu_check.sh NAME [build|tests|memcheck|racecheck|benchmarks ...]      (default: all)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

name=${1:?usage: tools/gpu_check.sh NAME [STEP...], NAME such as h200}
shift
steps=("${@:-}")
[[ -n ${steps[0]} ]] || steps=(build tests memcheck racecheck benchmarks)
logs=$(mktemp -d)
results=$PWD/benchmarks/results/cuda-$name.json
python=${PYTHON:-python}
export FASTLTC_REQUIRE_CUDA=1
table=()

# Small cases of every plan: the sanitizers slow kernels down a hundredfold.
sanitize() {
  compute-sanitizer --tool "$1" --error-exitcode 1 --target-processes all \
    "$python" -m pytest -q tests/ops/test_ltc_cuda.py tests/ops/test_cfc_cuda.py \
    -k "test_values_of_every_plan and not warp-"
}

build() {
  local arch
  arch=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())') || return
  "$python" -m pip install '.[test,bench]' --config-settings=cmake.define.FASTLTC_CUDA=ON \
    --config-settings=cmake.define.FASTLTC_CUDA_ARCHITECTURES="$arch" && "$python" -m fastltc.info
}
tests() { "$python" -m pytest -q -m cuda tests; }
memcheck() { sanitize memcheck; }
racecheck() { sanitize racecheck; }
benchmarks() {
  rm -f "$results"
  FASTLTC_CUDA_RESULTS=$results "$python" -m pytest -q -s -m cuda benchmarks
}

failed=0
for step in "${steps[@]}"; do
  case $step in
    build | tests | memcheck | racecheck | benchmarks) ;;
    *)
      echo "no step $step" >&2
      exit 2
      ;;
  esac
  start=$SECONDS
  printf '\n=== %s\n' "$step"
  if "$step" 2>&1 | tee "$logs/$step.log"; then outcome=passed; else
    outcome=FAILED
    failed=1
  fi
  table+=("$(printf '%-12s %-8s %5d s   %s' "$step" "$outcome" $((SECONDS - start)) \
    "$(grep -E '(passed|failed|ERROR SUMMARY|RACECHECK SUMMARY)' "$logs/$step.log" | tail -1)")")
done

printf '\n%s\n' "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null)"
printf '%s\n' "${table[@]}"
if [[ -f $results ]]; then
  "$python" - "$results" <<'PROGRAM'
import json, sys

for row in json.load(open(sys.argv[1])):
    times = row["milliseconds"]
    print(
        f"{row['case']:<38} {times['fastltc graph']:9.3f} ms"
        f"  {row['part_of_lstm']:6.2f} of LSTM (asked {row['part_of_lstm_asked']})"
        f"  {row['times_ncps']:8.0f} x ncps (asked {row['times_ncps_asked']})"
    )
PROGRAM
fi
exit "$failed"
