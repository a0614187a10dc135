# SPDX-License-Identifier: Apache-2.0
"""Converts a qwen.tiktoken vocabulary into a Hugging Face tokenizer.json.

A .tiktoken file has one "base64(bytes) rank" a line. The Hugging Face form wants merges: every token
of two bytes or more is made by exactly one merge, found by merging its bytes with lower ranks only.
Normalizer, split pattern and added tokens are those of the published Qwen3 tokenizer.json.

    python3 tiktoken_to_tokenizer_json.py qwen.tiktoken tokenizer.json     (standard library only)
"""

import base64
import json
import sys

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
NOT_SPECIAL = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
    "<think>", "</think>",
]  # fmt: skip


def byte_alphabet():
    """GPT-2's 256 characters: printable Latin-1 stands for itself, the rest for U+0100 onwards."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(0x100 + len(table) - len(printable))
    return table


def read_ranks(path):
    ranks = {}
    with open(path, "rb") as lines:
        for line in lines:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    assert sorted(ranks.values()) == list(range(len(ranks))), "ranks are not 0..n-1"
    return ranks


def halves(token, ranks):
    """The two parts that are left when only merges of a lower rank than the token's are done."""
    limit = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, best_rank = None, limit
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1], limit)
            if rank < best_rank:
                best, best_rank = i, rank
        assert best is not None, f"token {limit} is no result of a merge"
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


def main(source, target):
    ranks = read_ranks(source)
    alphabet = byte_alphabet()

    def spell(token):
        return "".join(alphabet[byte] for byte in token)

    in_order = sorted(ranks, key=ranks.get)
    merges = [[spell(half) for half in halves(t, ranks)] for t in in_order if len(t) > 1]
    added = [
        {
            "id": len(ranks) + i,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": content in SPECIAL,
        }
        for i, content in enumerate(SPECIAL + NOT_SPECIAL)
    ]
    byte_level = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": PATTERN},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", **byte_level},
            ],
        },
        "post_processor": {"type": "ByteLevel", **byte_level},
        "decoder": {"type": "ByteLevel", **byte_level},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spell(token): ranks[token] for token in in_order},
            "merges": merges,
        },
    }
    with open(target, "w", encoding="utf-8") as out:
        json.dump(tokenizer, out, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main(*sys.argv[1:])
