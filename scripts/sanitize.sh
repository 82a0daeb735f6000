#!/usr/bin/env bash
# The tests of tensor/cpu with its C kernels under AddressSanitizer and UndefinedBehaviorSanitizer: anything that one of
# them reports ends the run. gcc takes minutes to optimise instrumented templates as for a release, hence the tag. Left
# out are the plain Go kernels, and the tests that run the same products again with other numbers of threads.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
export CGO_CFLAGS='-O1 -g1 -fsanitize=undefined -fno-sanitize-recover=undefined' CGO_LDFLAGS=-fsanitize=undefined
exec "$GO" test -asan -tags sanitize -short -count=1 -skip 'Threads$|/go$' "$@" ./tensor/cpu
