#!/usr/bin/env bash
# Times the collectives of two processes of this host beside PyTorch's gloo backend, in turns, so that both see the same
# machine; arguments go to gloo.py. PyTorch is taken from the venv that peer.sh makes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
venv=${HERD_GOLDEN_VENV:-/tmp/golden-venv}
if [ ! -x "$venv/bin/python" ]; then
  echo "no PyTorch in $venv: run scripts/bench/peer.sh or 'make golden' once, or set HERD_GOLDEN_VENV" >&2
  exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${GO:-go}" -C "$root" test -c -o "$work/collective.test" ./collective
export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" "$here/gloo.py" --herd "$work/collective.test" "$@"
