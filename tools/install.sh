#!/usr/bin/env bash
# Installs fedloom and the extras named in EXTRAS into VENV, at the versions of CONSTRAINTS (constraints.txt).
# uv is faster but reads none of pip's settings: find-links are handed on to it, index settings are not. Where uv fails,
# and so where an index of pip's own is needed, plain pip installs.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
constraints=${CONSTRAINTS:-constraints.txt}
python=$venv/bin/python
target=".${EXTRAS:+[$EXTRAS]}"
[ -x "$python" ] || python3 -m venv "$venv"
links=()
for scope in :env: global user site install; do
  for link in $("$python" -m pip config get "$scope.find-links" 2>/dev/null || true); do links+=(--find-links "$link"); done
done
with_uv() {
  "$python" -m pip install -q -c "$constraints" uv &&
    "$venv/bin/uv" pip install -q --compile-bytecode -p "$python" "${links[@]}" -c "$constraints" -e "$target"
}
with_uv || "$python" -m pip install -q -c "$constraints" -e "$target"
