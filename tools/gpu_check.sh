#!/usr/bin/env bash
# On a machine with an NVIDIA GPU and a CUDA build of torch in the active environment: see
# tools/gpu_check.py, which this runs with PYTHON, or else with python or python3.
exec "${PYTHON:-$(command -v python || command -v python3)}" "$(dirname "${BASH_SOURCE[0]}")/gpu_check.py" "$@"
