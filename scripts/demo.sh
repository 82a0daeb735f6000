#!/usr/bin/env bash
# Trains llama3-debug on the source text of the Go tree at hand: prepares the shards once, starts or continues the run,
# prints a sample.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
config=configs/llama3-debug.yaml

if ! [ -e runs/data/go-src-val/manifest.json ]; then
	bin/trainer data prepare "$("$GO" env GOROOT)/src" --include '*.go' --max-bytes 16MiB \
		--tokenizer bpe --vocab-size 1024 --tokenizer-path runs/data/tokenizer.model \
		--sequence-length 128 --validation 0.05 \
		--output runs/data/go-src --validation-output runs/data/go-src-val
fi
bin/trainer run --config "$config"
bin/trainer generate --config "$config" --prompt 'func (r *Reader) Read(' --max-tokens 160
