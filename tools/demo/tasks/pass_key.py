# SPDX-License-Identifier: Apache-2.0
"""A number hidden in a text of filler sentences."""

from .conversation import exchange
from .vocabulary import ANIMALS, CITIES, COLOURS, DAYS, MONTHS, NAMES, WORDS

FILLER = [
    "The {a} sat near the {w}.", "It was a quiet {d}.", "{n} walked to the {w}.",
    "The {w} was {c}.", "In {m} the {w} is often {c}.", "{n} and {n2} talked about the {w}.",
    "A {c} {a} ran over the {w}.", "Nobody knew where the {w} was.", "{n} went to {t} in {m}.",
    "There were {k} boxes near the {w}.", "The {a} slept all {d}.",
    "{n} wrote the number {k} on a {w}.",
]


def filler(rng):
    return rng.choice(FILLER).format(
        a=rng.choice(ANIMALS), w=rng.choice(WORDS), d=rng.choice(DAYS), n=rng.choice(NAMES),
        n2=rng.choice(NAMES), c=rng.choice(COLOURS), m=rng.choice(MONTHS), t=rng.choice(CITIES),
        k=rng.randrange(2, 1000))


def pass_key(rng, sentences=None):
    if sentences is None:
        sentences = rng.choice([rng.randrange(3, 20), rng.randrange(20, 90)])
    number = str(rng.randrange(10000, 100000))
    parts = [filler(rng) for _ in range(sentences)]
    parts.insert(rng.randrange(len(parts) + 1),
                 f"The pass key is {number}. Remember it. {number} is the pass key.")
    text = " ".join(parts)
    question = rng.choice(["What is the pass key?", "Tell me the pass key."])
    if rng.random() < 0.5:
        text = "There is a pass key hidden in this text. Find it.\n\n" + text
    return exchange("pass_key", text + "\n\n" + question, f"The pass key is {number}.", number)
