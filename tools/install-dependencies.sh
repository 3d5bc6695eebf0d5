#!/usr/bin/env bash
#===- install-dependencies.sh - the Debian packages that building and testing need ---===#
# Part of dlc, under the Apache License v2.0 with LLVM Exceptions. See LICENSE for license information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#===------------------------------------------------------------------------===#
# Installs what is missing, as root; otherwise prints the one command that does and exits 1. Says nothing where all is there.
#
# LLVM 22 for Debian 12 is in the security archive. Where a minimal system does not list that archive, root gets it added, beside the
# archive that the system already uses.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

packages=(
  # compilers and linker: dlc is built with clang 22, and lld is a part of it
  clang-22 lld-22 liblld-22-dev libclang-rt-22-dev clang-format-22
  # LLVM and MLIR: libraries, mlir-tblgen, FileCheck and lit
  llvm-22 llvm-22-dev llvm-22-tools libmlir-22-dev mlir-22-tools
  # what LLVM's CMake files ask for, and our own small libraries
  zlib1g-dev libzstd-dev libcli11-dev nlohmann-json3-dev
  # formats of data files: .npz, HDF5, and the messages in Caffe's LMDB
  pkg-config libzip-dev libhdf5-dev libprotobuf-dev protobuf-compiler
  # building and testing
  cmake ninja-build libgtest-dev binutils file git
  python3 python3-numpy python3-h5py python3-lmdb
  # the data that mlp is trained on
  dataset-fashion-mnist
)

if ! command -v apt-get >/dev/null; then
  echo "install-dependencies: this system has no apt-get; dlc is built and tested on Debian 12" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

has_candidate() { apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [^(]'; }

if [ "$(id -u)" -ne 0 ]; then
  echo "install-dependencies: ${#missing[@]} packages are missing; as root:" >&2
  echo "apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
  if ! has_candidate clang-22; then
    echo "install-dependencies: apt does not know clang-22 (yet): on Debian 12 it is in the archive bookworm-security," \
         "which this script, run as root, adds" >&2
  fi
  exit 1
fi

# apt reports a broken archive as a warning and goes on; what counts is whether the packages can be had afterwards.
update() { apt-get update -qq -o Acquire::Retries=3 || true; }

# The security archive stands beside the main one: .../debian and .../debian-security.
add_security_archive() {
  local codename main
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  if [ "$codename" != bookworm ]; then
    echo "install-dependencies: no package clang-22 in the archives of '${codename:-this system}'; dlc needs LLVM 22 as in Debian 12 (bookworm)" >&2
    exit 1
  fi
  main=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
         sed -n 's|^\(.*/debian\)/\{0,1\} bookworm$|\1|p' | head -n 1)
  if [ -z "$main" ]; then
    echo "install-dependencies: no package clang-22, and no archive of Debian 12 whose security archive could be added;" \
         "add bookworm-security to apt's sources" >&2
    exit 1
  fi
  echo "install-dependencies: adding the archive $main-security" >&2
  cat >/etc/apt/sources.list.d/bookworm-security.sources <<SOURCE
Types: deb
URIs: $main-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCE
}

update
if ! has_candidate clang-22; then
  add_security_archive
  update
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "install-dependencies: installing ${#missing[@]} packages: ${missing[*]}" >&2
if ! apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "${missing[@]}" >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "install-dependencies: apt-get install failed" >&2
  exit 1
fi
