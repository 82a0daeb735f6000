#!/usr/bin/env bash
# Trains llama3-debug on the source text of the Go tree at hand: prepares the shards once, starts or continues the run,
# prints a sample. The packages are those of hand-written code; others hold megabytes of generated tables.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
config=configs/llama3-debug.yaml
src=$("$GO" env GOROOT)/src

bin/trainer data prepare "$src"/{bufio,bytes,fmt,go,io,net,os,strings,sync,text} --include '*.go' \
	--tokenizer bpe --vocab-size 1024 --tokenizer-path runs/data/tokenizer.model \
	--sequence-length 128 --validation 0.05 \
	--output runs/data/go-src --validation-output runs/data/go-src-val
bin/trainer run --config "$config"
bin/trainer generate --config "$config" --prompt 'func (r *Reader) Read(' --max-tokens 160
