#!/usr/bin/env bash
# convert.sh [DIR]: imports a model of the shape of Llama 3.1 8B with random weights and exports it again, below DIR (by
# default a new directory below /tmp), and prints time and peak resident memory of each. Needs 50 GB of disk and Python;
# removes what it wrote.
set -euo pipefail
cd "$(dirname "$0")/../.."
make -s build
work=$(mktemp -d "${1:-/tmp}/convert-XXXXXX")
trap 'rm -rf "$work"' EXIT
measured() { # NAME COMMAND…
	local name=$1
	shift
	python3 - "$name" "$@" <<-'EOF'
		import resource, subprocess, sys, time
		begin = time.time()
		code = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL).returncode
		peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
		print(f"{sys.argv[1]}: {time.time() - begin:.0f} s, at most {peak:.0f} MiB resident")
		sys.exit(code)
	EOF
}
python3 scripts/bench/hub.py "$work/source"
measured import bin/trainer checkpoint import "$work/source" "$work/run"
rm -rf "$work/source" # the disk may not hold all three
measured export bin/trainer checkpoint export "$work/run" "$work/export"
ls -s --block-size=MB "$work/export"
