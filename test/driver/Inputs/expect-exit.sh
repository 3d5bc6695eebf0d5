#!/bin/sh
# expect-exit.sh CODE COMMAND...: runs a command that has to end with a code; its output goes through.
expected=$1
shift
"$@"
code=$?
if [ "$code" -ne "$expected" ]; then
  echo "exit code $code instead of $expected: $*" >&2
  echo "exit code $code instead of $expected: $*"
  exit 1
fi
