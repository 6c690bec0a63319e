#!/usr/bin/env bash
# Builds fastltc for 64-bit Arm by cross-compilation, and runs its tests in QEMU:
#
#     tools/check_arm.sh [--short] [FOLDER]
#
# The C++ tests; libfastltc, with the instructions that a step takes; the wheels of fastltc-runtime
# and fastltc, in an Arm Python of Debian with torch 2.10, the last that has a wheel for the
# processor alone; the tests that are marked `kernels`. With --short the C++ tests that end in
# seconds and the runtime's wheel.
#
# Needs g++-aarch64-linux-gnu, qemu-user-static and, for Python, apt-get, of which nothing is
# installed. What is downloaded and built stays in FOLDER (build/arm).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
short=
if [[ ${1:-} == --short ]]; then
  short=yes
  shift
fi
mkdir -p "${1:-build/arm}"
folder=$(cd "${1:-build/arm}" && pwd)
project=$PWD
qemu=(qemu-aarch64-static -L /usr/aarch64-linux-gnu)
toolchain=$project/cmake/aarch64-linux.cmake
unset FASTLTC_CPU PIP_CONSTRAINT PIP_BUILD_CONSTRAINT

for tool in aarch64-linux-gnu-g++ qemu-aarch64-static; do
  command -v "$tool" >/dev/null || { echo "no $tool: see the head of $0" >&2; exit 1; }
done

tell() { printf '\n--- %s\n' "$*"; }

[ -d "$folder/tools" ] || python3 -m venv "$folder/tools"
"$folder/tools/bin/pip" --disable-pip-version-check install --quiet 'scikit-build-core>=0.11' \
  'pybind11>=3' 'cmake>=3.25' ninja
export PATH=$folder/tools/bin:$PATH

tell "C++ tests"
targets=(test_cfc test_frame test_isa test_ltc test_masked_linear test_sigmoid test_stream
  test_synapse_check test_library)
cmake -S . -B "$folder/cxx" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFASTLTC_BUILD_PYTHON=OFF \
  -DFASTLTC_BUILD_TESTS=ON -DFASTLTC_BUILD_LIBRARY=ON "-DCMAKE_TOOLCHAIN_FILE=$toolchain" >/dev/null
cmake --build "$folder/cxx" --target "${targets[@]}" fastltc_static
if [[ $short ]]; then
  ctest --test-dir "$folder/cxx" --output-on-failure \
    --tests-regex '^(isa|frame|masked_linear|sigmoid|library)\.(baseline|neon)$'
  FASTLTC_CPU=neon "${qemu[@]}" "$folder/cxx/tests/test_ltc" batches_of_every_width \
    networks_of_every_size time_steps_and_lengths resets options medium_sigmoids
else
  ctest --test-dir "$folder/cxx" --output-on-failure --parallel 2 \
    --tests-regex '\.(baseline|neon)$'
fi

# Instructions of 20 steps, by the difference of two runs: QEMU tells each one that it begins.
instructions() {
  FASTLTC_CPU=$1 qemu-aarch64-static -singlestep -d nochain,exec -D /dev/stdout "$folder/steps" \
    "tests/golden/models/$2.safetensors" "$3" "$4" | grep -c '^Trace'
}
count_instructions() {
  local model streams isa few many counts
  tell "instructions of a step: model, streams, baseline, neon"
  aarch64-linux-gnu-g++ -O2 -std=c++20 -static -Iinclude tools/arm/steps.cpp \
    "$folder/cxx/libfastltc.a" -o "$folder/steps"
  for model in ltc ltc-wide wired cfc; do
    for streams in 1 16; do
      counts=()
      for isa in baseline neon; do
        few=$(instructions "$isa" "$model" "$streams" 4)
        many=$(instructions "$isa" "$model" "$streams" 24)
        counts+=($(((many - few) / 20)))
      done
      echo "$model $streams ${counts[*]}"
    done
  done
}
[[ $short ]] || count_instructions

if ! command -v apt-get >/dev/null; then
  echo "no apt-get: the wheels are not built" >&2
  exit 1
fi

tell "Python for Arm"
release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
version=$(apt-cache depends python3 | sed -n 's/.*Depends: python\(3\.[0-9]*\)$/\1/p' | head -1)
root=$folder/root
if ! [ -x "$root/usr/bin/python$version" ]; then
  apt=$folder/apt
  mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$root"
  : >"$apt/status"
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$keyring] http://deb.debian.org/debian $release main" >"$apt/sources.list"
  options=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=
    -o "Dir::State=$apt" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt"
    -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::parts=/dev/null -o Dir::Etc::preferencesparts=/dev/null)
  apt-get "${options[@]}" update
  apt-get "${options[@]}" install --yes --no-install-recommends --download-only \
    "python$version" "libpython$version-dev" libstdc++6
  for package in "$apt"/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
fi

# With the name that it is called by as its own, so that it can start others of its kind.
write_python() {
  printf '%s\n' '#!/bin/sh' "exec qemu-aarch64-static -L '$root' -0 '$1' \\" \
    "  -E PYTHONHOME='$root/usr' -E PYTHONPATH='$2' '$root/usr/bin/python$version' \"\$@\"" >"$1"
  chmod +x "$1"
}
fetch() {
  local target=$1
  shift
  [ -d "$target" ] && return
  local platforms=() glibc
  for glibc in 17 26 27 28 31 34 35 36; do
    platforms+=(--platform "manylinux_2_${glibc}_aarch64")
  done
  # pip judges by the machine that it runs on which packages others ask for: they are all named.
  pip --disable-pip-version-check install --quiet --no-deps --only-binary :all: --target "$target" \
    --implementation cp --python-version "$version" --abi "cp${version/./}" --abi abi3 --abi none \
    "${platforms[@]}" --platform manylinux2014_aarch64 "$@" || { rm -rf "$target"; return 1; }
}
# A wheel for the Arm Python, by the Python of here. Not isolated: pip would fetch the CMake of Arm.
build() {
  local suffix=.cpython-${version/./}-aarch64-linux-gnu.so
  _PYTHON_HOST_PLATFORM=linux-aarch64 SETUPTOOLS_EXT_SUFFIX=$suffix \
    CXXFLAGS="-isystem $root/usr/include" \
    CMAKE_ARGS="-DCMAKE_TOOLCHAIN_FILE=$toolchain -DPYTHON_MODULE_EXTENSION=$suffix \
      -DPython_INCLUDE_DIR=$root/usr/include/python$version -DFASTLTC_CUDA=OFF $2" \
    "$folder/tools/bin/pip" --disable-pip-version-check wheel --quiet --no-deps \
    --no-build-isolation --wheel-dir "$folder/wheels" "$1"
}
rm -rf "$folder/wheels"
unpack() { python -m zipfile -e "$1" "$2"; }
here=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [[ $here != "$version" ]]; then
  echo "Python $here runs here; the wheels need $version, that of Debian $release" >&2
  exit 1
fi

tell "fastltc-runtime for Arm"
fetch "$folder/bare" numpy safetensors
build ./runtime ""
rm -rf "$folder"/bare/fastltc*
unpack "$folder"/wheels/fastltc_runtime-*.whl "$folder/bare"
# What a .pth file does where packages are installed.
write_python "$folder/python-bare" "$folder/bare:$folder/bare/fastltc_runtime"
"$folder/python-bare" -m fastltc.info
"$folder/python-bare" tools/smoke_runtime.py
ls -l "$folder"/wheels
if [[ $short ]]; then exit; fi

tell "fastltc for Arm"
torch=2.10.0
fetch "$folder/site" --extra-index-url https://download.pytorch.org/whl/cpu "torch==$torch" \
  numpy safetensors scikit-learn joblib threadpoolctl narwhals scipy matplotlib contourpy cycler \
  fonttools kiwisolver packaging pillow pyparsing python-dateutil six networkx click rich \
  markdown-it-py mdurl pygments pooch platformdirs requests certifi charset-normalizer idna urllib3 \
  imagehash pywavelets typing_extensions sympy mpmath jinja2 markupsafe fsspec filelock ncps \
  pytest pluggy iniconfig pytest-xdist execnet hypothesis sortedcontainers attrs
build . "-DFASTLTC_TORCH_DIR=$folder/site/torch"
rm -rf "$folder"/site/fastltc*
unpack "$folder"/wheels/fastltc-*.whl "$folder/site"
write_python "$folder/python" "$folder/site"
"$folder/python" -m fastltc.info
"$folder/python" tools/smoke_test.py
"$folder/python" -m pytest -p no:cacheprovider --numprocesses 2 --hypothesis-profile emulation \
  -m "kernels and not slow" tests/ops tests/nn tests/runtime
