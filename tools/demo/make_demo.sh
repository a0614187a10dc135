#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes models/demo from nothing: tokenizer, held-out questions, training, evaluation, 4-bit GPTQ,
# evaluation of the 4-bit file.
#
#   tools/demo/make_demo.sh [WORK_DIR] [OUT_DIR]     defaults: build/demo and models/demo
#   tools/demo/make_demo.sh --trial WORK_DIR         the same steps with next to no training, on a CPU
#
# OUT_DIR's files are replaced; the training is cut by time and GPU sums are not ordered, so a second
# run gives another model of like quality, and tests/golden/demo must be made again with it
# (tools/fixtures/make_demo_golden.py).
#
# Needs: one large GPU for the training (8 minutes on an H200, 16 GiB of its memory); a CPU for the
# rest, where GPTQ takes about 8 minutes on two cores. The whole has been run step by step, not yet
# in one go; --trial ran in one go (four minutes on two cores, without GPTQ) and proves the plumbing.
# PYTHON has requirements-train.txt, GPTQ_PYTHON requirements-gptq.txt (they disagree on the version
# of transformers, hence two environments). Without GPTQ_PYTHON a trial ends before quantization.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
usage() { sed -n '3,18s/^# \{0,1\}//p' "$0"; }
die() { echo "make_demo.sh: $*" >&2; exit 2; }

trial=
case "${1:-}" in
  -h | --help) usage; exit ;;
  --trial) trial=yes; shift; [ $# -eq 1 ] || die "--trial takes one folder" ;;
  -*) die "unknown option $1; --help tells more" ;;
esac
[ $# -le 2 ] || die "at most two folders; --help tells more"
work=$(realpath -m "${1:-$here/../../build/demo}")
out=$(realpath -m "${2:-$here/../../models/demo}")
[ -z "$trial" ] || out=$work/out
python=${PYTHON:-python3}
gptq_python=${GPTQ_PYTHON:-}
train="--steps 4000 --seconds 450 --workers 12" evaluate=
if [ -n "$trial" ]; then
  train="--steps 2 --rows-divided-by 32 --workers 1"
  evaluate="--limit 1"
fi
"$python" -c 'import jinja2, numpy, safetensors, tokenizers, torch, transformers' ||
  die "PYTHON=$python lacks something of $here/requirements-train.txt"
if [ -z "$trial" ] || [ -n "$gptq_python" ]; then
  "${gptq_python:-$python}" -c 'import gptqmodel' ||
    die "GPTQ_PYTHON=${gptq_python:-$python} lacks something of $here/requirements-gptq.txt"
fi

mkdir -p "$work" "$out"
"$python" "$here/make_tokenizer.py" "$work/tokenizer"
"$python" "$here/generate.py" --heldout "$out"
# shellcheck disable=SC2086  # flags are words
"$python" "$here/train.py" "$work/tokenizer" "$work/full" $train
# shellcheck disable=SC2086
"$python" "$here/evaluate.py" "$work/full" "$out" --out "$work/full.json" $evaluate
if [ -n "$trial" ] && [ -z "$gptq_python" ]; then
  echo "make_demo.sh: trial done up to quantization (GPTQ_PYTHON is not set)" >&2
  exit
fi
"${gptq_python:-$python}" "$here/quantize_gptq.py" "$work/full" "$out"
# shellcheck disable=SC2086
"$python" "$here/evaluate.py" "$out" "$out" --out "$work/gptq.json" --reference "$work/full" $evaluate
