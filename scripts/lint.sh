#!/usr/bin/env bash
# The checks of 'make lint', all of them even when one fails. Needs bin/trainer.
set -uo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
failed=0

# check NAME COMMAND…: the command must succeed and print nothing.
check() {
	local name=$1 out status
	shift
	out=$("$@" 2>&1)
	status=$?
	if [ "$status" = 0 ] && [ -z "$out" ]; then
		echo "ok    $name"
		return
	fi
	echo "FAIL  $name"
	[ -z "$out" ] || sed 's/^/      /' <<<"$out"
	failed=1
}

architecture() {
	local out
	out=$("$GO" test ./scripts/lint 2>&1) || { echo "$out"; return 1; }
}

# A C function that is called and nowhere defined links silently when any package loosens the linker, and ends the
# process at its first call. Only glibc's symbols, weak ones, and NVML's (resolved when its library is opened) are left
# to the dynamic linker.
undefined_symbols() {
	nm -D --undefined-only bin/trainer | grep -vE '@GLIBC| w |nvml' || true
}

verify_modules() {
	local out
	out=$("$GO" mod verify 2>&1) || { echo "$out"; return 1; }
}

check gofmt gofmt -l .
check 'go vet' "$GO" vet ./...
check staticcheck "$GO" tool staticcheck ./...
check architecture architecture
check 'go mod tidy' "$GO" mod tidy -diff
check 'go mod verify' verify_modules
check 'undefined symbols' undefined_symbols
exit $failed
