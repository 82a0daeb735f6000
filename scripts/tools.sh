#!/usr/bin/env bash
# Fails with one line that says what to install when Go or a C compiler is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
want=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' go.mod)

fail() {
	echo "$*" >&2
	exit 1
}

command -v "$GO" >/dev/null || fail "Go is missing: install Go $want or newer and put its bin directory on the PATH"
have=$("$GO" env GOVERSION 2>/dev/null | sed 's/^go//') || true
oldest=$(printf '%s\n' "$want" "${have:-0}" | sort -V | head -n 1)
[ "$oldest" = "$want" ] || fail "Go is too old ($("$GO" version | cut -d ' ' -f 3)): install Go $want or newer"

[ "${CGO_ENABLED:-1}" = 0 ] && exit 0
cc=$("$GO" env CC)
command -v "${cc%% *}" >/dev/null || fail "a C compiler ($cc) is missing: install gcc (Debian, Ubuntu: apt install gcc; Fedora: dnf install gcc), or set CGO_ENABLED=0 for the slow plain Go kernels"
