#!/usr/bin/env bash
# Generates the Go of proto/ again. Needs protoc (Debian, Ubuntu: apt install protobuf-compiler); the Go plugin is the
# version that go.mod pins.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}

command -v protoc >/dev/null || {
	echo "protoc is missing: install it (Debian, Ubuntu: apt install protobuf-compiler)" >&2
	exit 1
}
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
"$GO" build -o "$plugins/" google.golang.org/protobuf/cmd/protoc-gen-go

find proto -name '*.proto' | sort | while read -r file; do
	PATH="$plugins:$PATH" protoc --proto_path=proto --go_out=proto --go_opt=paths=source_relative "${file#proto/}"
done
