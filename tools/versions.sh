#!/usr/bin/env bash
# Runs pytest in an environment of its own with the lowest versions that pyproject.toml allows, or the
# newest, and with any Python:
#
#     tools/versions.sh [--newest] [--python PYTHON] [--torch VERSION] [--wheel FILE] \
#       PYTEST-ARGUMENT...
#
# Of what has no wheel of its lowest version for that Python, or is asked for in a newer one by
# others, the lowest that will do. torch is VERSION, a build of it from PIP_FIND_LINKS before that of
# the index, or the lowest or newest too, of which there may be the build for CUDA alone: gigabytes.
set -euo pipefail
resolution=lowest-direct
base=python
torch=
wheel=.
while [[ ${1:-} == --@(newest|python|torch|wheel) ]]; do
  case $1 in
    --newest) resolution=highest && shift && continue ;;
    --python) base=$2 ;;
    --torch) torch=$2 ;;
    --wheel) wheel=$2 ;;
  esac
  shift 2
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$base" -m venv "$work/venv"
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
"${uv[@]}" compile "${options[@]}" --no-header --no-annotate --resolution "$resolution" \
  --constraint "$work/constraints.txt" --extra test --extra tensorboard pyproject.toml \
  -o "$work/versions.txt"
grep -E '^(numpy|scipy|torch|scikit-learn|matplotlib|pillow|onnx)' "$work/versions.txt"
"${uv[@]}" install "${options[@]}" -r "$work/versions.txt"
# The kernels for CUDA ask nothing of other packages.
"${pip[@]}" install --no-deps -C cmake.define.FASTLTC_CUDA=OFF "$wheel"
"$python" -m pytest -p no:cacheprovider "$@"
