#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes models/demo from nothing: tokenizer, held-out questions, training, evaluation, 4-bit GPTQ,
# evaluation of the 4-bit file. Training wants one large GPU (about 8 minutes on an H200, 16 GiB of
# its memory); the rest runs on a CPU. Use, from the repository root:
#   tools/demo/make_demo.sh [WORK_DIR] [OUT_DIR]
# PYTHON has requirements-train.txt, GPTQ_PYTHON requirements-gptq.txt (they disagree on the
# version of transformers, hence two environments).
set -eu
work=${1:-build/demo}
out=${2:-models/demo}
python=${PYTHON:-python3}
gptq_python=${GPTQ_PYTHON:-$python}
here=$(dirname "$0")

mkdir -p "$work" "$out"
"$python" "$here/make_tokenizer.py" "$work/tokenizer"
"$python" "$here/generate.py" --heldout "$out"
"$python" "$here/train.py" "$work/tokenizer" "$work/full" --steps 4000 --seconds 450 --workers 12
"$python" "$here/evaluate.py" "$work/full" "$out" --out "$work/full.json"
"$gptq_python" "$here/quantize_gptq.py" "$work/full" "$out"
"$python" "$here/evaluate.py" "$out" "$out" --out "$work/gptq.json" --reference "$work/full"
