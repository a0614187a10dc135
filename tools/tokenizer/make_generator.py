# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/tokenizer/generator.txt: what random test strings are made of.

Lines are "range FIRST LAST" (assigned code points in hex), "mark FIRST LAST" (those that combine),
"space CODE" and "snippet TEXT" with the escapes \\n \\r \\t \\\\ \\u{HEX}. Code points are those of Unicode
14.0 (Python 3.11's unicodedata) without private use, and without the few that combine since 13.0: NFC
in Hugging Face tokenizers is of Unicode 12, PCRE2 10.42 of 14, ICU 72 of 15, Oniguruma of 16.
"""

import pathlib
import sys
import unicodedata

from tokenizers import normalizers

SNIPPETS = r"""
the and of to in is that for with as was on are it be this have from or one had by word but not what
all were we when your can said there use each which she do how their if will up other about out many
then them these some her would make like him into time has look two more write see number way could
Hello, world! |I'll |you're |they've |she'd |it's |IT'S |WE'LL |'re|'Ve|'LL|'\u{17f}|'x|''s|can't've
1234.5€|3.14159|1,000,000|0x7fff|1e-9|2026-11-21|٣٤٥|१२३|Ⅷ|½|②|10%|$5|№7
\n|\n\n|\r\n|\r\n\r\n|\r|\t|\t\t| | \u{20}|   |    |        |\n    |\n\t|\u{20}\n|  \n \n|\u{a0}|\u{3000}|\u{2028}|\u{85}
def f(x):\n    return x  # it's\n|for (int i = 0; i < n; ++i) {\n  a[i] += b[i];\n}\n|#include <vector>\n
SELECT * FROM t WHERE id = 42;|{"name": "f", "arguments": {"x": [1, 2.5, null, true]}}|<div class="a">b</div>
https://example.com/a/b?c=d&e=f#g|user@example.org|C:\\Users\\x|/usr/lib/libx.so.1|--flag=value|a->b::c|$((1+2))
!=|==|===|=>|->|<-|::|...|…|----|____|****|/////|####|//|/*|*/|'''|```|``|~~|^^|&&||\\n|\\t
<|im_start|>|<|im_end|>|<|endoftext|>|<tool_call>|</tool_call>|<think>|</think>|<|im_start|<|im_end|>|<|im_|im_end|>
<|im_start|>user\nHi<|im_end|>\n|<tool_response>\n|</tool_response>|<|fim_prefix|>|<|fim_suffix|>|<|fim_middle|>|<|video_pad|>
Größe|naïve|café|cafe\u{301}|e\u{301}|\u{438}\u{306}|a\u{30a}|A\u{30a}\u{301}|o\u{323}\u{302}|o\u{302}\u{323}|\u{1100}\u{1161}\u{11a8}|\u{ac00}\u{11a8}|\u{212b}|\u{2126}|\u{fb01}|\u{958}\u{301}
Привет, мир!|Ελληνικά|עברית|العربية|فارسی|हिन्दी|বাংলা|தமிழ்|తెలుగు|ไทย|ລາວ|မြန်မာ|ქართული|Հայերեն|አማርኛ|ខ្មែរ|Tiếng Việt
漢字|你好，世界！|人工智能|日本語のテキスト|カタカナ|ｶﾀｶﾅ|한국어 텍스트|繁體中文|，。！？|「」『』|ＡＢＣ１２３
👍🏽|👩‍👩‍👧‍👦|🏳️‍🌈|🇩🇪|❤️|😀😃😄|👨🏿‍🚀|☕|✨|①|→|≤|∑|√|∞|π|𝔘𝔫𝔦|𝟙𝟚
\u{0}|\u{1}|\u{7f}|\u{ad}|\u{200b}|\u{200d}|\u{feff}|\u{fffd}|\u{180e}|\u{1c}|\u{1f}|\u{e000}|\u{b}|\u{c}
""".strip("\n")


NFC = normalizers.NFC()


def agrees(text):
    return NFC.normalize_str(text) == unicodedata.normalize("NFC", text)


def unknown_to_the_oracle():
    """Marks whose combining class, and second halves whose composition, tokenizers doesn't know."""
    low, high = "\u0334", "\u0345"  # classes 1 and 240, the ends of the order
    unknown = set()
    for c in map(chr, [*range(0xD800), *range(0xE000, 0x110000)]):
        mark = unicodedata.combining(c)
        if mark and not agrees(c + low if mark > 1 else high + c):
            unknown.add(c)
        apart = unicodedata.normalize("NFD", c)
        if not agrees(apart):
            unknown.add(apart[-1])
    return unknown


def snippets():
    for number, line in enumerate(SNIPPETS.split("\n")):
        if number < 3:
            yield from line.split(" ")
        elif "<|" in line:  # token texts hold the separator
            yield from line.replace("|>|", "|>\0").replace(">|<", ">\0<").split("\0")
        else:
            yield from (part for part in line.split("|") if part)


def ranges(keep):
    out = []
    for code in range(0x110000):
        if not keep(chr(code)):
            continue
        if out and out[-1][1] == code - 1 and code % 256:
            out[-1][1] = code
        else:
            out.append([code, code])
    return out


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"needs Python 3.11 (Unicode 14.0.0), not {unicodedata.unidata_version}")

    unknown = unknown_to_the_oracle()

    def assigned(c):
        return unicodedata.category(c) not in ("Cn", "Cs", "Co") and c not in unknown

    def combines(c):
        return assigned(c) and unicodedata.combining(c) != 0

    def block_starts(found):  # long runs (Han, Hangul) count once, not once a 256
        joined = []
        for first, last in found:
            if joined and joined[-1][1] == first - 1:
                joined[-1][1] = last
            else:
                joined.append([first, last])
        return joined

    lines = [f"range {a:x} {b:x}" for a, b in block_starts(ranges(assigned))]
    lines += [f"mark {a:x} {b:x}" for a, b in block_starts(ranges(combines))]
    white = [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029]
    white += [0x202F, 0x205F, 0x3000]
    lines += [f"space {c:x}" for c in white]
    lines += [f"snippet {s}" for s in snippets()]
    repo = pathlib.Path(__file__).resolve().parents[2]
    target = repo / "tests/golden/tokenizer/generator.txt"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
