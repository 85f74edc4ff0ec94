#!/usr/bin/env bash
# Everything that needs a CUDA device, in one go or part by part, with tables in docs/benchmarks/.
#
#   tests/gpu.sh [PART...] [--no-keops]     PYTHON=... chooses the interpreter (default: .venv/bin/python if it exists, else python3)
#
#   tests      the tests marked gpu
#   ops        kernel products, cuda.md
#   lse        log-sum-exp products and Sinkhorn, cuda.md
#   lddmm      one energy and gradient beside KeOps, lddmm.md
#   peers      Deformetrica's objective and atlas, matching.md
#   many       thousands of matchings at once, many.md
#
# Needs torch with CUDA and the extra cuda12 or cuda13 that matches it. PyKeOps is compared with if it can be imported.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
OUT=${OUT:-build/gpu}
mkdir -p "$OUT"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYKEOPS_VERBOSE=0

"$PYTHON" - <<'PY'
import sys, torch
if not torch.cuda.is_available():
    sys.exit("torch sees no CUDA device: nothing to test here")
from shapeflow.ops.backends import cuda
cuda.check()
print(torch.cuda.get_device_name(), "torch", torch.__version__, "CUDA", torch.version.cuda)
PY

# PyKeOps links its CUDA library with libraries that some linkers drop as unneeded, and its cache breaks when shared between setups:
# a compiler wrapper that keeps them, and a cache of our own.
wrapper=$(mktemp -d)
trap 'rm -rf "$wrapper"' EXIT
printf '#!/bin/sh\nexec /usr/bin/g++ -Wl,--no-as-needed "$@"\n' > "$wrapper/g++"
chmod +x "$wrapper/g++"
export CXX="$wrapper/g++" KEOPS_CACHE_FOLDER="$wrapper/keops"
mkdir -p "$KEOPS_CACHE_FOLDER"

flags=() parts=()
for argument in "$@"; do
    case $argument in --*) flags+=("$argument") ;; *) parts+=("$argument") ;; esac
done
[ ${#parts[@]} -gt 0 ] || parts=(tests ops lse lddmm peers many)
if ! "$PYTHON" -c "import pykeops.torch" >/dev/null 2>&1; then
    echo "PyKeOps cannot be imported: the tables go without it" >&2
    flags+=(--no-keops)
fi

status=0
for part in "${parts[@]}"; do
    case $part in
        tests) command=(-m pytest -m gpu -p no:cacheprovider tests) ;;
        ops) command=(-m tests.benchmarks.ops_cuda --write "${flags[@]}") ;;
        lse) command=(-m tests.benchmarks.lse --device cuda --write "${flags[@]}") ;;
        lddmm) command=(-m tests.benchmarks.lddmm_keops --device cuda --write "${flags[@]}") ;;
        peers) command=(-m tests.benchmarks.matching --device cuda --write) ;;
        many) command=(-m tests.benchmarks.many_matchings --device cuda --write) ;;
        *) echo "unknown part $part: see the head of $0" >&2; exit 2 ;;
    esac
    "$PYTHON" "${command[@]}" 2>&1 | tee "$OUT/$part.log" || status=$?
done
cp docs/benchmarks/*.md "$OUT/"
exit "$status"
