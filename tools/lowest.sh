#!/usr/bin/env bash
# Runs pytest in an environment of its own with the lowest versions that pyproject.toml allows:
#
#     tools/lowest.sh [--torch VERSION] [--wheel FILE] PYTEST-ARGUMENT...
#
# Of what has no wheel of its lowest version for this Python, or is asked for in a newer one by
# others, the lowest that will do. torch is the one given, or the lowest too, which are gigabytes.
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
find_links=()
for folder in ${PIP_FIND_LINKS:-}; do find_links+=(--find-links "$folder"); done
: >"$work/constraints.txt"
if [[ -n $torch ]]; then echo "torch==$torch" >"$work/constraints.txt"; fi
"$work/venv/bin/uv" pip compile --quiet --no-header --no-annotate --resolution lowest-direct \
  --only-binary :all: "${find_links[@]}" --constraint "$work/constraints.txt" \
  --python "$work/venv/bin/python" --extra test --extra tensorboard \
  pyproject.toml -o "$work/lowest.txt"
grep -E '^(numpy|scipy|torch|scikit-learn|matplotlib|pillow|onnx)' "$work/lowest.txt"
unset PIP_CONSTRAINT PIP_BUILD_CONSTRAINT
"${pip[@]}" install --only-binary :all: -r "$work/lowest.txt"
"${pip[@]}" install --no-deps "$wheel"
"$work/venv/bin/python" -m pytest -p no:cacheprovider "$@"
