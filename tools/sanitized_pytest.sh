#!/usr/bin/env bash
# Runs pytest on the libraries of a build with sanitizers, in the Python of this environment:
#
#     cmake -S . -B BUILD -G Ninja -DCMAKE_BUILD_TYPE=Debug -DFASTLTC_CUDA=OFF \
#       -DFASTLTC_SANITIZE=address,undefined
#     cmake --build BUILD
#     tools/sanitized_pytest.sh BUILD tests/ops tests/nn tests/runtime
#
# torch and Python are not instrumented: leaks are not looked for, and what torch's own threads do
# is not seen. A fault ends the process with its report.
set -euo pipefail
build=$(cd "$1" && pwd)
shift
site=$build/site
rm -rf "$site"
mkdir -p "$site"
cp -r "$(dirname "${BASH_SOURCE[0]}")/../python/fastltc" "$site/fastltc"
cp "$build"/_C.so "$build"/_runtime*.so "$site/fastltc/"
runtimes=
for library in libasan.so libubsan.so; do
  runtimes+="$(realpath "$(c++ -print-file-name=$library)") "
done
export PYTHONPATH=$site PYTHONSAFEPATH=1 LD_PRELOAD=${runtimes% }
# Recursion tests go deep; instrumented frames are several times as large.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
ulimit -s unlimited || true
python - "$site" <<'EOF'
import sys

import fastltc

assert fastltc.__file__.startswith(sys.argv[1]), f"another fastltc is imported: {fastltc.__file__}"
EOF
exec python -m pytest -p no:cacheprovider "$@"
