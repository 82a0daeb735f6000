#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz target of the module for TIME, one after the other. An input that fails is kept under
# testdata/fuzz of its package, where every later 'go test' tries it again: commit it with the fix.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
time=${1:-20s}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz TARGET DIR: fails if an input does, which go test then names. Now and then it fails by itself instead, when its own
# time ends while a worker starts an input ("context deadline exceeded"): that is no finding.
fuzz() {
	"$GO" test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 10x "$2" </dev/null 2>&1 | tee "$log" && return
	grep -q '^    context deadline exceeded$' "$log" && ! grep -q 'Failing input' "$log"
}

grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file func; do
	target=${func#func }
	echo "== $(dirname "$file") $target"
	fuzz "$target" "$(dirname "$file")"
done
