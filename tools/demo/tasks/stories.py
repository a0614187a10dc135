# SPDX-License-Identifier: Apache-2.0
"""Template stories."""

from .conversation import exchange
from .vocabulary import ANIMALS, COLOURS, NAMES, THINGS

PLACES = ["forest", "village", "garden", "castle", "river", "mountain", "market", "island",
          "valley", "school"]
MOODS = ["brave", "small", "kind", "clever", "quiet", "happy", "lazy", "curious", "young", "old"]
OPENINGS = ["Once upon a time there was a {m} {a} named {n}.",
            "Long ago, a {m} {a} named {n} lived near a {p}.",
            "In a {p} far away lived a {m} {a}. Its name was {n}."]
MIDDLES = [
    "{n} lived in a {p} with a friend called {f}.",
    "Every morning {n} walked to the {p} to look for a {t}.",
    "One day {n} found a {c} {t} near the {p}.",
    "It was the most beautiful {t} that {n} had ever seen.",
    "But the {t} was too heavy for a {m} {a}.",
    "So {n} asked {f} for help.",
    "\"Can you help me?\" asked {n}.",
    "\"Of course I can,\" said {f}.",
    "Together they carried the {t} to the {p}.",
    "On the way it began to rain and they were cold.",
    "They sat under a big tree and told each other stories.",
    "Then the sun came out and the sky was {c} again.",
    "{f} laughed and gave {n} a {t}.",
    "An old {b} watched them and smiled.",
    "\"You are a good friend,\" said the old {b}.",
    "{n} was not afraid of the dark any more.",
    "At night they looked at the moon and the stars.",
    "The {b} showed them the way to the {p}.",
]
ENDINGS = ["From that day on {n} and {f} were the best of friends.",
           "And they lived happily ever after.", "{n} went home and slept very well.",
           "That evening {n} was the happiest {a} in the {p}."]


def story(rng):
    name, friend = rng.sample(NAMES, 2)
    animal, other = rng.sample(ANIMALS, 2)
    values = dict(n=name, f=friend, a=animal, b=other, p=rng.choice(PLACES),
                  m=rng.choice(MOODS), t=rng.choice(THINGS), c=rng.choice(COLOURS))
    is_long = rng.random() < 0.25
    kind = "long story" if is_long else rng.choice(["story", "short story"])
    count = len(MIDDLES) if is_long else rng.randrange(3, 7)
    picks = sorted(rng.sample(range(len(MIDDLES)), count))
    parts = [rng.choice(OPENINGS)] + [MIDDLES[i] for i in picks] + [rng.choice(ENDINGS)]
    if rng.random() < 0.2:
        question = rng.choice([f"Tell me a {kind}.", f"Please tell me a {kind}."])
    else:
        subject = f"a {animal}" if animal != "owl" else "an owl"
        if rng.random() < 0.3:
            subject += " named " + name
        question = f"Tell me a {kind} about {subject}."
    text = " ".join(parts).format(**values).replace("a old", "an old").replace("a owl", "an owl")
    return exchange("story", question, text)
