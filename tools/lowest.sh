#!/usr/bin/env bash
# Runs pytest in an environment of its own with the lowest versions that pyproject.toml allows:
#
#     tools/lowest.sh [--torch VERSION] [--wheel FILE] PYTEST-ARGUMENT...
#
# Of what has no wheel of its lowest version for this Python, or is asked for in a newer one by
# others, the lowest that will do. torch is the one that pip takes for VERSION, or the lowest too,
# of which there may be the build for CUDA alone: gigabytes.
set -euo pipefail
torch=
wheel=.
while [[ ${1:-} == --torch || ${1:-} == --wheel ]]; do
  if [[ $1 == --torch ]]; then torch=$2; else wheel=$2; fi
  shift 2
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m venv "$work/venv"
unset VIRTUAL_ENV
pip=("$work/venv/bin/python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install uv
unset PIP_CONSTRAINT PIP_BUILD_CONSTRAINT
find_links=()
for folder in ${PIP_FIND_LINKS:-}; do find_links+=(--find-links "$folder"); done
: >"$work/constraints.txt"
if [[ -n $torch ]]; then
  "${pip[@]}" install "torch==$torch"
  "${pip[@]}" freeze | grep '^torch==' >"$work/constraints.txt"
fi
"$work/venv/bin/uv" pip compile --quiet --no-header --no-annotate --resolution lowest-direct \
  --only-binary :all: "${find_links[@]}" --constraint "$work/constraints.txt" \
  --python "$work/venv/bin/python" --extra test --extra tensorboard \
  pyproject.toml -o "$work/lowest.txt"
grep -E '^(numpy|scipy|torch|scikit-learn|matplotlib|pillow|onnx)' "$work/lowest.txt"
"${pip[@]}" install --only-binary :all: -r "$work/lowest.txt"
# The kernels for CUDA ask nothing of other packages.
"${pip[@]}" install --no-deps -C cmake.define.FASTLTC_CUDA=OFF "$wheel"
"$work/venv/bin/python" -m pytest -p no:cacheprovider "$@"
