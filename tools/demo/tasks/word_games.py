# SPDX-License-Identifier: Apache-2.0
"""Copying, reversing, sorting and spelling words, letters and numbers."""

import string

from .conversation import exchange
from .vocabulary import NAMES, WORDS


def odd_item(rng):
    kind = rng.randrange(5)
    if kind == 0:
        return str(rng.randrange(10000))
    if kind == 1:
        return "".join(rng.choices(string.ascii_lowercase, k=rng.randrange(1, 7)))
    if kind == 2:
        return rng.choice(NAMES)
    return rng.choice(WORDS)


def copy(rng):
    items = [odd_item(rng) for _ in range(rng.randrange(2, 12))]
    text = " ".join(items)
    if rng.random() < 0.2:
        text = ", ".join(items) + rng.choice([".", "!", ""])
    form = rng.choice(["Repeat after me: {}", "Copy this: {}", "Repeat this text exactly: {}",
                       "Say this back to me: {}", "Repeat: {}"])
    return exchange("copy", form.format(text), text, text)


def reverse(rng):
    if rng.random() < 0.5:
        items = rng.sample(WORDS, rng.randrange(2, 8))
        form = rng.choice(["Reverse the order of these words: {}", "Reverse these words: {}",
                           "Say these words backwards: {}"])
    else:
        items = rng.choices(string.ascii_lowercase, k=rng.randrange(3, 10))
        form = rng.choice(["Reverse these letters: {}", "Say these letters backwards: {}"])
    text = " ".join(items)
    return exchange("reverse", form.format(text), " ".join(reversed(items)), text)


def sort_items(rng):
    if rng.random() < 0.6:
        items = rng.sample(WORDS, rng.randrange(3, 7))
        form = rng.choice(["Sort these words: {}", "Sort these words alphabetically: {}",
                           "Put these words in alphabetical order: {}"])
        answer = sorted(items)
    else:
        items = rng.sample(range(10 ** rng.choice([2, 2, 3])), rng.randrange(3, 7))
        form = rng.choice(["Sort these numbers: {}", "Sort these numbers from small to large: {}",
                           "Put these numbers in order: {}"])
        answer = sorted(items)
    text = " ".join(map(str, items))
    return exchange("sort", form.format(text), " ".join(map(str, answer)), text)


def spell(rng):
    word = rng.choice(WORDS)
    kind = rng.randrange(3)
    if kind == 0:
        return exchange("spell", f"Spell the word {word}.", " ".join(word))
    if kind == 1:
        return exchange("spell", f"What is the first letter of {word}?", word[0])
    items = rng.sample(WORDS, rng.randrange(2, 8))
    return exchange("spell", f"How many words are here: {' '.join(items)}?", str(len(items)))
