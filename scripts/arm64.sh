#!/usr/bin/env bash
# The tests of tensor/cpu on arm64: compiled by a cross compiler, run by qemu. There the C kernels are the portable ones.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
cc=aarch64-linux-gnu-gcc root=/usr/aarch64-linux-gnu

for tool in "$cc" qemu-aarch64; do
	if ! command -v "$tool" >/dev/null; then
		echo "SKIP arm64: no $tool (Debian, Ubuntu: apt install gcc-aarch64-linux-gnu qemu-user)"
		exit 0
	fi
done

test=$(mktemp)
trap 'rm -f "$test"' EXIT
CC=$cc CGO_ENABLED=1 GOARCH=arm64 "$GO" test -c -o "$test" ./tensor/cpu
cd tensor/cpu
qemu-aarch64 -L "$root" "$test" -test.short "$@"
