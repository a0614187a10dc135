#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds, tests and measures hotset on a machine with an NVIDIA GPU:
#   build      Release, for this GPU's architecture alone
#   tests      every CUDA operation and the whole model on the GPU, against the CPU
#   decode prefill zipf nf4
#              rows of `hotset bench` on synthetic checkpoints with the 80B's shapes, which are written first
#   sanitizer  compute-sanitizer: memcheck over the operations' tests but the largest, racecheck and synccheck over a few
# It ends within ten minutes, the build not counted: what does not fit is skipped, and said.
# Writes table.md, tests.txt, results.json and log.txt into a folder. Exits 0 when all that ran went well, 1 when
# something failed, 2 when there is no GPU or the flags are wrong.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
all_parts="build tests decode prefill zipf nf4 sanitizer"

usage() {
  sed -n '3,11p' "$0" | sed 's/^# \{0,1\}//'
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
  --minutes N        for all but the build (default: 10)
  --keep             do not delete the checkpoints that were written
TEXT
}
say() { printf '==> %s\n' "$*" | tee -a "$log" >&2; }
die() { printf 'gpu_check: %s\n' "$1" >&2; exit "${2:-1}"; }

parts=$all_parts bin='' out='' data=${TMPDIR:-/tmp} uniform='' layers='' budget='' threads='' keep='' minutes=10 log=/dev/null
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
    --minutes) [[ $2 =~ ^[1-9][0-9]*$ ]] || die "--minutes: $2 is no number of them" 2; minutes=$2 ;;
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
failed=() skipped=()
started=$SECONDS
deadline=$((SECONDS + 60 * minutes))

skip() { skipped+=("$1: $2"); say "$1: SKIPPED, $2"; }
time_left() { echo $((deadline - SECONDS)); }

# step NAME LIMIT_S COMMAND …: runs with the log as output; says how long it took and whether it failed. What the
# deadline leaves no time for is skipped, and what it ends is skipped as well: neither says that anything is wrong.
ended=''  # how the last step did: by itself, or cut; empty: it did not begin
step() {
  local name=$1 limit=$2 begin=$SECONDS left status
  shift 2
  ended=''
  left=$(time_left)
  if [ "$left" -lt 5 ]; then
    skip "$name" "the $minutes minutes are over"
    return 1
  fi
  ended=cut
  printf '\n$ %s\n' "$*" >>"$log"
  if [ "$left" -lt "$limit" ]; then
    timeout "$left" "$@" >>"$log" 2>&1
    status=$?
    [ $status -eq 124 ] && { skip "$name" "it did not end within the $minutes minutes"; return 1; }
  else
    timeout "$limit" "$@" >>"$log" 2>&1
    status=$?
  fi
  ended=itself
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
  deadline=$((SECONDS + 3600))
  step configure 120 cmake -S "$root" --preset release -B "$bin" -DHOTSET_BUILD_TESTS=ON -DHOTSET_BUILD_BENCH=OFF \
    "-DHOTSET_CUDA_ARCHITECTURES=${gpu_cc/./}-real" &&
    step build 1200 cmake --build "$bin" --target hotset cuda_test gpu_model_test || die "the build failed; see $log"
  deadline=$((SECONDS + 60 * minutes))
}

find_program() { find "$bin" -name "$1" -type f -perm -u+x 2>/dev/null | head -1; }

# What the last command of the log printed.
last_output() { awk '/^\$ /{text = ""} {text = text $0 "\n"} END {printf "%s", text}' "$log"; }

note_tests() {  # note_tests NAME PATTERN: what the last step said, for tests.txt
  if [ "$ended" = itself ]; then
    last_output | grep -E "$2" | sed "s/^/$1 /" >>"$out/tests.txt"
  else
    echo "$1 SKIPPED: ${skipped[-1]}" >>"$out/tests.txt"
  fi
}

run_test() {  # run_test NAME
  local program
  program=$(find_program "$1")
  [ -n "$program" ] || { say "$1: FAILED, $bin has none"; failed+=("$1"); return; }
  cd "$root/tests" && step "$1" 240 "$program" --gtest_brief=1
  note_tests "$1" '^\[ *(PASSED|FAILED|SKIPPED) *\]'
  cd "$root" || die "$root is gone"
}

# check TOOL LIMIT_S FILTER: one of compute-sanitizer's tools over some of cuda_test.
check() {
  step "sanitizer, $1" "$2" "$sanitizer" --tool "$1" --error-exitcode 9 "$cuda_test" --gtest_brief=1 "--gtest_filter=$3"
  note_tests "$1" '^(========= .*SUMMARY|\[ *(PASSED|FAILED) *\])'
}

sanitize() {
  cuda_test=$(find_program cuda_test)
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
  if [ -z "$sanitizer" ]; then
    skip sanitizer "compute-sanitizer is not installed"
    echo "sanitizer SKIPPED: compute-sanitizer is not installed" >>"$out/tests.txt"
    return
  fi
  [ -n "$cuda_test" ] || { say "sanitizer: FAILED, $bin has no cuda_test"; failed+=(sanitizer); return; }
  check memcheck 240 '-*Long*:*Big*'
  check racecheck 120 'RowOps*:TopLogits*:GpuMoeTest.OutputsOfPartsOfTheExperts:GpuMatmulTest.ReadsInputInThePackedOrder'
  check synccheck 60 'RowOps*:TopLogits*:GpuMoeTest.OutputsOfPartsOfTheExperts:GpuMatmulTest.ReadsInputInThePackedOrder'
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
    printf 'failed or skipped; see log.txt\n' >>"$out/table.md"
  [ -z "$ended" ] || last_output | sed '1d' | grep -v '^==>' >>"$out/table.md"
}

# A list of JSON strings.
json_list() {
  local text separator=''
  printf '['
  for text in "$@"; do
    printf '%s"%s"' "$separator" "${text//\"/\\\"}"
    separator=', '
  done
  printf ']'
}

write_results() {
  local file first=1
  {
    printf '{"gpu": "%s", "compute_capability": "%s", "layers": %s, "budget": "%s", "failed": %s, "skipped": %s, "runs": {' \
      "$gpu_name" "$gpu_cc" "${layers:-0}" "$budget" "$(json_list "${failed[@]}")" "$(json_list "${skipped[@]}")"
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
if wants decode || wants prefill || wants zipf || wants nf4; then
  [ -n "$hotset" ] || die "no hotset in $bin"
  [ -n "$layers" ] || choose_layers
  printf '# hotset on a %s\n\n%s of the 80B'"'"'s 48 layers, GPU budget %s, %s.\n' "$gpu_name" "$layers" \
    "${budget:-all that is free}" "$(date -u '+%F %H:%M UTC')" >"$out/table.md"
fi
if wants decode || wants prefill; then
  if [ -n "$uniform" ] && model=$uniform || synth uniform --format gptq; then
    if wants decode; then
      bench decode -p 0 -n 128 --seqs 1,4,16 --warmup 64 -r 2 -c 4k
      bench decode-8-threads -p 0 -n 128 --warmup 64 -r 2 -c 4k -t 8
      bench decode-deep -p 0 -n 64 -d 65536 --warmup 16 -r 2 -c 66k
    fi
    wants prefill && bench prefill -p 512,8192,32768 -n 0 -r 2 -c 33k
    [ "$model" = "$uniform" ] || drop
  fi
fi
if wants zipf && synth zipf --format gptq --routing zipf:1; then
  bench decode-zipf -p 0 -n 256 --text drift --warmup 1024 -r 2 -c 4k
  drop
fi
if wants nf4 && synth nf4 --format nf4; then
  bench nf4 -p 512,8192 -n 128 --warmup 64 -r 2 -c 16k
  drop
fi
wants sanitizer && sanitize
write_results
[ ! -f "$out/table.md" ] || cat "$out/table.md"
[ ${#skipped[@]} -eq 0 ] || say "skipped: $(printf '%s; ' "${skipped[@]}")"
say "$((SECONDS - started)) s in all; $out/table.md, results.json, log.txt"
[ ${#failed[@]} -eq 0 ] || die "failed: $(printf '%s; ' "${failed[@]}")"
