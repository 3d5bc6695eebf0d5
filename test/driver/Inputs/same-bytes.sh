#!/bin/sh
# same-bytes.sh PROGRAM EXTENSION RUNS: compiles a program over and over; each run has its own folder,
# name and environment, and the program lies in that folder.
set -e
program=$1 extension=$2 runs=$3
dlc "$program" -o "first.$extension"
i=0
while [ $i -lt "$runs" ]; do
  mkdir -p "folder$i/deep"
  cp "$program" "folder$i/"
  (cd "folder$i/deep" && NOISE=$(head -c $((i * 1000)) /dev/zero | tr '\0' x) TZ=Asia/Tokyo LC_ALL=de_DE.UTF-8 TMPDIR=. \
    dlc "../$(basename "$program")" -o "other$i.$extension")
  cmp "first.$extension" "folder$i/deep/other$i.$extension"
  i=$((i + 1))
done
