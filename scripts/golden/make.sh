#!/usr/bin/env bash
# Makes trainer/llama/testdata/golden and trainer/testdata/hub anew, in a venv kept outside the
# repository (HERD_GOLDEN_VENV, by default /tmp/golden-venv). Needs Python 3.11
# and a few GB of disk. Arguments go to llama.py: another output folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${HERD_GOLDEN_VENV:-/tmp/golden-venv}

# The stamp is a copy of the requirements that were installed last.
if ! cmp -s "$here/requirements.txt" "$venv/requirements.stamp"; then
  "${PYTHON:-python3.11}" -m venv "$venv"
  "$venv/bin/pip" install --quiet -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/requirements.stamp"
fi
export PYTHONDONTWRITEBYTECODE=1
"$venv/bin/python" "$here/llama.py" "$@"
make -C "$here/../.." --no-print-directory build
exec "$venv/bin/python" "$here/interchange.py"
