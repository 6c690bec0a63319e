#!/usr/bin/env bash
# Runs pytest in an environment of its own with the lowest versions that pyproject.toml allows:
#
#     tools/lowest.sh [--torch VERSION] [--wheel FILE] PYTEST-ARGUMENT...
#
# Of what has no wheel of its lowest version for this Python, or is asked for in a newer one by
# others, the lowest that will do. torch is VERSION, a build of it from PIP_FIND_LINKS before that of
# the index, or the lowest too, of which there may be the build for CUDA alone: gigabytes.
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
python=$work/venv/bin/python
pip=("$python" -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install uv
unset PIP_CONSTRAINT PIP_BUILD_CONSTRAINT
# Much quicker than pip.
uv=("$work/venv/bin/uv" pip --quiet)
options=(--python "$python" --only-binary :all:)
for folder in ${PIP_FIND_LINKS:-}; do options+=(--find-links "$folder"); done
: >"$work/constraints.txt"
if [[ -n $torch ]]; then
  "${uv[@]}" install "${options[@]}" "torch==$torch"
  "${uv[@]}" freeze --python "$python" | grep '^torch==' >"$work/constraints.txt"
fi
"${uv[@]}" compile "${options[@]}" --no-header --no-annotate --resolution lowest-direct \
  --constraint "$work/constraints.txt" --extra test --extra tensorboard pyproject.toml \
  -o "$work/lowest.txt"
grep -E '^(numpy|scipy|torch|scikit-learn|matplotlib|pillow|onnx)' "$work/lowest.txt"
"${uv[@]}" install "${options[@]}" -r "$work/lowest.txt"
# The kernels for CUDA ask nothing of other packages.
"${pip[@]}" install --no-deps -C cmake.define.FASTLTC_CUDA=OFF "$wheel"
"$python" -m pytest -p no:cacheprovider "$@"
