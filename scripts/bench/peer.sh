#!/usr/bin/env bash
# Times this trainer beside PyTorch; arguments go to peer.py. PyTorch is taken
# from the venv of scripts/golden (HERD_GOLDEN_VENV, by default
# /tmp/golden-venv), made here if it is not there: Python 3.11 and a few GB of
# disk. torch.compile needs g++.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/../golden/requirements.txt
venv=${HERD_GOLDEN_VENV:-/tmp/golden-venv}

# The stamp is a copy of the requirements that were installed last.
if ! cmp -s "$requirements" "$venv/requirements.stamp"; then
  "${PYTHON:-python3.11}" -m venv "$venv"
  "$venv/bin/pip" install --quiet -r "$requirements"
  cp "$requirements" "$venv/requirements.stamp"
fi
make --silent -C "$here/../.." build
export PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" "$here/peer.py" "$@"
