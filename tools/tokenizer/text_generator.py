# SPDX-License-Identifier: Apache-2.0
"""Seeded random strings out of generator.txt. tests/tokenizer/text_generator.cc makes the same ones:
a change here is a change there, and the golden files are made again."""

import re

MASK = (1 << 64) - 1


class TextGenerator:
    def __init__(self, path):
        self.ranges, self.marks, self.spaces, self.snippets = [], [], [], []
        with open(path, encoding="utf-8", newline="\n") as lines:
            for line in lines.read().split("\n"):
                kind, _, rest = line.partition(" ")
                if kind == "range":
                    self.ranges.append([int(x, 16) for x in rest.split()])
                elif kind == "mark":
                    self.marks.append([int(x, 16) for x in rest.split()])
                elif kind == "space":
                    self.spaces.append(int(rest, 16))
                elif kind == "snippet":
                    self.snippets.append(unescape(rest))

    def text(self, index):
        self.state = (index * 0xD1B54A32D192ED03) & MASK
        return "".join(self.part() for _ in range(1 + self.pick(12)))

    def part(self):
        kind = self.pick(12)
        if kind < 4:
            return self.snippet()
        if kind == 4:
            return "".join(" " + self.snippet() for _ in range(1 + self.pick(6)))
        if kind < 7:
            chosen = self.ranges[self.pick(len(self.ranges))]
            return "".join(self.char(chosen) for _ in range(1 + self.pick(12)))
        if kind == 7:
            return "".join(self.any_char() for _ in range(1 + self.pick(8)))
        if kind == 8:
            return "".join(
                chr(self.spaces[self.pick(len(self.spaces))]) for _ in range(1 + self.pick(8))
            )
        if kind == 9:
            char = self.any_char()
            return char * (1 + self.pick(40))
        if kind == 10:
            base = self.any_char()
            return base + "".join(
                self.char(self.marks[self.pick(len(self.marks))]) for _ in range(1 + self.pick(4))
            )
        return "".join(chr(0x20 + self.pick(95)) for _ in range(1 + self.pick(20)))

    def next(self):  # splitmix64
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def pick(self, n):
        return self.next() % n

    def snippet(self):
        return self.snippets[self.pick(len(self.snippets))]

    def char(self, chosen):
        return chr(chosen[0] + self.pick(chosen[1] - chosen[0] + 1))

    def any_char(self):
        return self.char(self.ranges[self.pick(len(self.ranges))])


def unescape(text):
    simple = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    return re.sub(
        r"\\(?:u\{([0-9a-f]+)\}|(.))",
        lambda m: chr(int(m[1], 16)) if m[1] else simple[m[2]],
        text,
    )


def fnv(values):
    """FNV-1a over whole integers instead of bytes."""
    value = 0xCBF29CE484222325
    for v in values:
        value = ((value ^ v) * 0x100000001B3) & MASK
    return value
