#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds, tests and measures hotset on a machine with an NVIDIA GPU, in about ten minutes:
#   build      Release, for this GPU's architecture alone
#   tests      every CUDA operation and the whole model on the GPU, against the CPU
#   sanitizer  compute-sanitizer over a few of them, where it is installed
#   decode prefill zipf nf4
#              rows of `hotset bench` on synthetic checkpoints with the 80B's shapes, which are written first
# Writes table.md, results.json and log.txt into a folder. Exits 0 when all went well, 1 when something failed,
# 2 when there is no GPU or the flags are wrong.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
all_parts="build tests sanitizer decode prefill zipf nf4"

usage() {
  sed -n '3,10p' "$0" | sed 's/^# \{0,1\}//'
  cat <<TEXT

usage: ./dev gpu [flags]
  --only PART,…      of: $all_parts
  --bin DIR          take hotset, cuda_test and gpu_model_test from there, build nothing
  --out DIR          where results go (default: gpu-check-DATE)
  --data DIR         where checkpoints are written (default: \$TMPDIR or /tmp)
  --uniform DIR      a checkpoint that exists, for the decode and prefill rows
  --layers N         of the synthetic checkpoints (default: all 48, or as many as RAM and disk hold)
  --gpu-memory SIZE  budget (default: 16GiB, or all of a smaller GPU)
  --threads N        of most rows (default: hotset's own choice); one row has 8 whatever this says
  --keep             do not delete the checkpoints that were written
TEXT
}
say() { printf '==> %s\n' "$*" | tee -a "$log" >&2; }
die() { printf 'gpu_check: %s\n' "$1" >&2; exit "${2:-1}"; }

parts=$all_parts bin='' out='' data=${TMPDIR:-/tmp} uniform='' layers='' budget='' threads='' keep='' log=/dev/null
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --keep) keep=1; shift; continue ;;
  esac
  [ $# -ge 2 ] || die "$1 wants a value, or is no flag (--help)" 2
  case $1 in
    --only) parts=${2//,/ } ;;
    --bin) bin=$(realpath -e "$2") || die "--bin: there is no $2" 2 ;;
    --out) out=$2 ;;
    --data) data=$2 ;;
    --uniform) uniform=$(realpath -e "$2") || die "--uniform: there is no $2" 2 ;;
    --layers) layers=$2 ;;
    --gpu-memory) budget=$2 ;;
    --threads) threads=$2 ;;
    *) die "$1 is no flag (--help)" 2 ;;
  esac
  shift 2
done
for part in $parts; do [[ " $all_parts " == *" $part "* ]] || die "no part is called $part (--help)" 2; done
wants() { [[ " $parts " == *" $1 "* ]]; }

gpus=$(nvidia-smi --query-gpu=name,compute_cap,memory.total --format=csv,noheader,nounits 2>/dev/null) || gpus=
gpu=${gpus%%$'\n'*}
IFS=, read -r gpu_name gpu_cc gpu_mib <<<"${gpu//, /,}"
# Without a device nvidia-smi may print a sentence in place of the list.
[[ $gpu_mib =~ ^[0-9]+$ ]] ||
  die "no NVIDIA GPU with a driver was found (nvidia-smi lists none); nothing was run" 2
[ -n "$budget" ] || { [ "$gpu_mib" -gt 18000 ] && budget=16GiB; }

out=${out:-gpu-check-$(date -u +%Y%m%d-%H%M)}
mkdir -p "$out/runs" "$data" || die "cannot write $out and $data"
out=$(realpath "$out") data=$(realpath "$data") log=$out/log.txt
: >"$log"
failed=()
started=$SECONDS

# step NAME LIMIT_S COMMAND …: runs with the log as output; says how long it took and whether it failed.
step() {
  local name=$1 limit=$2 begin=$SECONDS status
  shift 2
  printf '\n$ %s\n' "$*" >>"$log"
  timeout "$limit" "$@" >>"$log" 2>&1
  status=$?
  if [ $status -eq 0 ]; then
    say "$name: fine, $((SECONDS - begin)) s"
  else
    [ $status -eq 124 ] && name+=" (ended after $limit s)"
    say "$name: FAILED, $((SECONDS - begin)) s; see $log"
    failed+=("$name")
  fi
  return $status
}

build() {
  command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] ||
    die "no CUDA compiler (nvcc) was found; --bin DIR takes binaries that exist" 2
  "$root/dev" setup || die "packages that a build needs could not be installed"
  bin=$root/build/gpu
  step configure 120 cmake -S "$root" --preset release -B "$bin" -DHOTSET_BUILD_TESTS=ON -DHOTSET_BUILD_BENCH=OFF \
    "-DHOTSET_CUDA_ARCHITECTURES=${gpu_cc/./}-real" &&
    step build 1200 cmake --build "$bin" --target hotset cuda_test gpu_model_test || die "the build failed; see $log"
}

find_program() { find "$bin" -name "$1" -type f -perm -u+x 2>/dev/null | head -1; }

run_test() {  # run_test NAME
  local program
  program=$(find_program "$1")
  [ -n "$program" ] || { say "$1: FAILED, $bin has none"; failed+=("$1"); return; }
  (cd "$root/tests" && step "$1" 240 "$program" --gtest_brief=1)
  [ $? -eq 0 ] || failed+=("$1")
  awk '/^\$ /{text = ""} {text = text $0 "\n"} END {printf "%s", text}' "$log" |
    grep -E '^\[ *(PASSED|FAILED|SKIPPED) *\]' | sed "s/^/$1 /" >>"$out/tests.txt"
}

sanitize() {
  local program tool
  program=$(find_program cuda_test)
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
  [ -n "$tool" ] || { say "sanitizer: skipped, compute-sanitizer is not installed"; return; }
  [ -n "$program" ] || { say "sanitizer: FAILED, $bin has no cuda_test"; failed+=(sanitizer); return; }
  step sanitizer 150 "$tool" --tool memcheck --error-exitcode 9 "$program" --gtest_brief=1 \
    "--gtest_filter=RowOps*:GpuMoeTest.TheModelsShapes:TopLogits*"
}

gib_free() { df -P -BG "$data" | awk 'NR == 2 {sub("G", "", $4); print $4}'; }
gib_ram() { awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo; }

# A layer of the 80B takes 0.85 GiB, embedding and head 1.3 GiB; beside the file the program holds it once.
choose_layers() {
  local ram disk fit
  ram=$(gib_ram) disk=$(gib_free)
  if [ "$ram" -ge 100 ] && [ "$disk" -ge 50 ]; then
    layers=48
    return
  fi
  fit=$(((ram * 7 / 10 < disk * 9 / 10 ? ram * 7 / 10 : disk * 9 / 10) - 3))
  layers=$((fit * 100 / 85 / 4 * 4))
  [ "$layers" -le 48 ] || layers=48
  [ "$layers" -ge 4 ] || die "$ram GiB of RAM and $disk GiB in $data do not hold four layers of the 80B"
}

# synth NAME FLAGS …: the directory is left in $model.
synth() {
  local name=$1
  shift
  model=$data/hotset-$name-$layers
  [ -f "$model/.whole" ] && return
  rm -rf "$model"
  if ! step "writing $name, $layers layers" 300 "$hotset" synth -q --layers "$layers" "$@" -o "$model"; then
    rm -rf "$model"
    return 1
  fi
  touch "$model/.whole"
}
drop() { [ -n "$keep" ] || [ ! -f "$model/.whole" ] || rm -rf "$model"; }

# bench NAME FLAGS …: a Markdown table, and one more object for results.json.
bench() {
  local name=$1 flags=(--device cuda)
  shift
  [ -z "$budget" ] || flags+=(--gpu-memory "$budget")
  [ -z "$threads" ] || [[ " $* " == *" -t "* ]] || flags+=(-t "$threads")
  printf '\n## %s\n\n`hotset bench %s %s`\n\n' "$name" "$(basename "$model")" "$* ${flags[*]}" >>"$out/table.md"
  step "bench $name" 150 "$hotset" bench "$model" --quiet "$@" "${flags[@]}" --json-file "$out/runs/$name.json" ||
    printf 'failed; see log.txt\n' >>"$out/table.md"
  # What this run wrote last into the log: from its head line on.
  awk -v OFS= '/^\$ /{text = ""} {text = text $0 "\n"} END {printf "%s", text}' "$log" | sed '1d' |
    grep -v '^==>' >>"$out/table.md"
}

write_results() {
  local file first=1
  {
    printf '{"gpu": "%s", "compute_capability": "%s", "layers": %s, "budget": "%s", "runs": {' \
      "$gpu_name" "$gpu_cc" "${layers:-0}" "$budget"
    for file in "$out"/runs/*.json; do
      [ -s "$file" ] || continue
      [ $first = 1 ] || printf ','
      first=0
      printf '\n"%s": ' "$(basename "$file" .json)"
      cat "$file"
    done
    printf '}}\n'
  } >"$out/results.json"
}

say "$gpu_name, compute capability $gpu_cc, $gpu_mib MiB; results in $out"
if [ -z "$bin" ]; then
  if wants build; then build; else bin=$root/build/gpu; fi
fi
hotset=$(find_program hotset)
if wants tests; then
  run_test cuda_test
  run_test gpu_model_test
fi
wants sanitizer && sanitize
if wants decode || wants prefill || wants zipf || wants nf4; then
  [ -n "$hotset" ] || die "no hotset in $bin"
  [ -n "$layers" ] || choose_layers
  printf '# hotset on a %s\n\n%s of the 80B'"'"'s 48 layers, GPU budget %s, %s.\n' "$gpu_name" "$layers" \
    "${budget:-all that is free}" "$(date -u '+%F %H:%M UTC')" >"$out/table.md"
fi
if wants decode || wants prefill; then
  if [ -n "$uniform" ]; then model=$uniform; else synth uniform --format gptq; fi
  if wants decode; then
    bench decode -p 0 -n 128 --seqs 1,4,16 --warmup 64 -r 2 -c 4k
    bench decode-8-threads -p 0 -n 128 --warmup 64 -r 2 -c 4k -t 8
    bench decode-deep -p 0 -n 64 -d 65536 --warmup 16 -r 2 -c 66k
  fi
  wants prefill && bench prefill -p 512,8192,32768 -n 0 -r 2 -c 33k
  [ "$model" = "$uniform" ] || drop
fi
if wants zipf; then
  synth zipf --format gptq --routing zipf:1
  bench decode-zipf -p 0 -n 256 --text drift --warmup 1024 -r 2 -c 4k
  drop
fi
if wants nf4; then
  synth nf4 --format nf4
  bench nf4 -p 512,8192 -n 128 --warmup 64 -r 2 -c 16k
  drop
fi
write_results
[ ! -f "$out/table.md" ] || cat "$out/table.md"
say "$((SECONDS - started)) s in all; $out/table.md, results.json, log.txt"
[ ${#failed[@]} -eq 0 ] || die "failed: $(printf '%s; ' "${failed[@]}")"
