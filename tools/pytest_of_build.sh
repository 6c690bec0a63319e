#!/usr/bin/env bash
# Runs pytest on the libraries of a CMake build, with the Python and torch of this environment:
#
#     cmake -S . -B BUILD -G Ninja -DCMAKE_BUILD_TYPE=Debug -DFASTLTC_CUDA=OFF \
#       -DFASTLTC_SANITIZE=address,undefined        or -DFASTLTC_COVERAGE=ON
#     cmake --build BUILD --target _C _runtime
#     tools/pytest_of_build.sh BUILD tests/ops tests/nn tests/runtime
#
# Under sanitizers torch and Python are not instrumented: leaks are not looked for, and what torch's
# own threads do is not seen. A fault ends the process with its report.
set -euo pipefail
build=$(cd "$1" && pwd)
shift
site=$build/site
rm -rf "$site"
mkdir -p "$site"
cp -r "$(dirname "${BASH_SOURCE[0]}")/../python/fastltc" "$site/fastltc"
cp "$build"/_C.so "$build"/_runtime*.so "$site/fastltc/"
# An editable install imports its own before anything on the path.
cat >"$site/sitecustomize.py" <<'EOF'
import sys

sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
EOF
export PYTHONPATH=$site PYTHONSAFEPATH=1
python - "$site" <<'EOF'
import sys

import fastltc

assert fastltc.__file__.startswith(sys.argv[1]), f"another fastltc is imported: {fastltc.__file__}"
EOF
if grep -q '^FASTLTC_SANITIZE:STRING=.*address' "$build/CMakeCache.txt"; then
  for library in libasan.so libubsan.so; do
    LD_PRELOAD=${LD_PRELOAD:-}\ $(realpath "$(c++ -print-file-name=$library)")
  done
  export LD_PRELOAD
  export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
  export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
fi
exec python -m pytest -p no:cacheprovider "$@"
