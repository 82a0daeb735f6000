#!/usr/bin/env bash
# dist.sh VERSION: packs bin/trainer and what its user reads into dist/herd-VERSION-linux-amd64.tar.gz. The same tree
# and tools give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
name=herd-$version-linux-amd64
stamp=@$(git log -1 --format=%ct 2>/dev/null || echo 0)

floor=$(objdump -T bin/trainer | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1 | sed 's/GLIBC_//' || true)
rm -rf "dist/$name"
mkdir -p "dist/$name"
cp -r bin/trainer README.md LICENSE CHANGELOG.md configs docs "dist/$name/"
echo "herd $version for linux/amd64; needs glibc ${floor:-of any version} or newer" >"dist/$name/VERSION"

tar -C dist --sort=name --mtime="$stamp" --owner=0 --group=0 --numeric-owner -cf - "$name" | gzip -n9 >"dist/$name.tar.gz"
rm -rf "dist/$name"
(cd dist && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "dist/$name.tar.gz: needs glibc ${floor:-of any version} or newer"
