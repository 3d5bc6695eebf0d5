#!/usr/bin/env bash
#===- quickstart.sh - from a clean clone to a trained network ---===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
# Installs what is missing (as root; otherwise it prints the one command that does), builds dlc and dlrun, compiles examples/mlp.dl
# and trains it on Fashion-MNIST. Ends with the accuracy on the test images.
#
#   BUILD=DIR tools/quickstart.sh       builds there instead of in build/
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${BUILD:-$root/build}
say() { printf '\n== %s\n' "$*"; }

"$root/tools/install-dependencies.sh"

say "building dlc and dlrun in $build"
mkdir -p "$build"
# a build folder that was configured keeps its settings; what cmake has to say is shown only if it fails
if ! cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang-22 -DCMAKE_CXX_COMPILER=clang++-22 \
     -DPython3_EXECUTABLE=/usr/bin/python3 >"$build/configure.log" 2>&1; then
  cat "$build/configure.log" >&2
  exit 1
fi
cmake --build "$build" --target dlc dlrun

say "compiling examples/mlp.dl"
"$build/bin/dlc" "$root/examples/mlp.dl" -o "$build/mlp.so"
"$build/bin/dlrun" info "$build/mlp.so"

say "training it on Fashion-MNIST"
images_and_labels() {
  local files
  files=$(dpkg -L dataset-fashion-mnist)
  grep "/$1-images-idx3-ubyte.gz\$" <<<"$files"
  grep "/$1-labels-idx1-ubyte.gz\$" <<<"$files"
}
mapfile -t train < <(images_and_labels train)
mapfile -t test < <(images_and_labels t10k)
if [ ${#train[@]} -ne 2 ] || [ ${#test[@]} -ne 2 ]; then
  echo "quickstart: the package dataset-fashion-mnist does not have its four files; install it again" >&2
  exit 1
fi
# its last line is the accuracy on the test images
"$build/bin/dlrun" train "$build/mlp.so" --data "x=${train[0]}" --data "label=${train[1]}" \
  --validation "x=${test[0]}" --validation "label=${test[1]}" --scale x=1/255 --batch 128 --epochs 8 \
  --checkpoint "$build/mlp-checkpoints" --overwrite
