#!/usr/bin/env bash
# Applies known bugs, one at a time, to a copy of the tree, and runs the tests that must notice: each has to be killed.
#   tools/mutants.sh            all, in about ten minutes on one core
#   tools/mutants.sh noise      those whose name contains "noise"
# A line of tools/mutants.txt: name @@ file @@ what stands there @@ what the bug puts there @@ test files.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$PWD/${VENV:-.venv}/bin/python
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$copy"
survived=0 killed=0
while IFS= read -r line; do
  case $line in "" | "#"*) continue ;; *"${1:-}"*"@@"*) ;; *) continue ;; esac
  name=${line%% @@*}
  [[ $name == *"${1:-}"* ]] || continue
  file=$("$python" tools/mutate.py "$copy" "$line")
  tests=${line##*@@ }
  code=0
  # shellcheck disable=SC2086  # several test files are several words
  (cd "$copy" && PYTHONPATH=src PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 \
    "$python" -m pytest -x -q -p no:cacheprovider $tests >"$copy/log" 2>&1) || code=$?
  cp "$file" "$copy/$file"
  case $code in
    1) killed=$((killed + 1)); echo "killed    $name" ;;
    0) survived=$((survived + 1)); echo "SURVIVED  $name" ;;
    *) tail -20 "$copy/log"; echo "BROKEN    $name: pytest ended with $code"; exit 2 ;;
  esac
done <tools/mutants.txt
echo "$killed killed, $survived survived"
[ "$survived" = 0 ] && [ "$killed" -gt 0 ]
