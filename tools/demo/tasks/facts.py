# SPDX-License-Identifier: Apache-2.0
"""Facts learnt by heart, and facts read from a small table."""

from .conversation import exchange
from .vocabulary import (ANIMALS, CAPITALS, CITIES, COLOURS, DAYS, HUES, LEGS, MONTHS, NAMES,
                         OPPOSITES, SOUNDS)


def world_fact(rng):
    kind = rng.randrange(8)
    if kind <= 1:
        land, city = rng.choice(list(CAPITALS.items()))
        form, answer = rng.choice([
            ("What is the capital of {0}?", "The capital of {0} is {1}."),
            ("Which city is the capital of {0}?", "The capital of {0} is {1}."),
            ("Name the capital of {0}.", "The capital of {0} is {1}."),
            ("{1} is the capital of which country?", "{1} is the capital of {0}."),
        ])
        values = (land, city)
    elif kind == 2:
        one, two = rng.choice(list(OPPOSITES.items()))
        form, answer = rng.choice([
            ("What is the opposite of {0}?", "The opposite of {0} is {1}."),
            ("Name the opposite of {0}.", "The opposite of {0} is {1}."),
        ])
        values = (one, two) if rng.random() < 0.5 else (two, one)
    elif kind == 3:
        values = rng.choice(list(SOUNDS.items()))
        form, answer = rng.choice([
            ("What sound does a {0} make?", "A {0} {1}."),
            ("What does a {0} do when it calls?", "A {0} {1}."),
        ])
    elif kind == 4:
        values = rng.choice(list(HUES.items()))
        form, answer = "What colour is {0}?", "The colour of {0} is {1}."
    elif kind == 5:
        values = rng.choice(list(LEGS.items()))
        form, answer = "How many legs does a {0} have?", "A {0} has {1} legs."
        if values[0] == "ant":
            form, answer = "How many legs does an {0} have?", "An {0} has {1} legs."
    elif kind == 6:
        row = rng.choice([DAYS, MONTHS])
        at = rng.randrange(len(row))
        values = (row[at], row[(at + 1) % len(row)])
        word = "day" if row is DAYS else "month"
        form, answer = rng.choice([
            (f"Which {word} comes after {{0}}?", "{1} comes after {0}."),
            (f"Which {word} comes before {{1}}?", "{0} comes before {1}."),
        ])
    else:
        at = rng.randrange(12)
        values = (MONTHS[at], at + 1)
        form, answer = "Which number has the month {0}?", "{0} is month number {1}."
    found = exchange("world_fact", form.format(*values), answer.format(*values))
    found.key = ""  # facts are learnt, so they are asked as they were taught
    return found


def table_fact(rng):
    people = rng.sample(NAMES, rng.randrange(3, 7))
    columns = rng.sample(["Age", "City", "Colour", "Pet"], rng.randrange(1, 4))
    domain = {"Age": [str(n) for n in range(10, 90)], "City": CITIES, "Colour": COLOURS,
              "Pet": ANIMALS}
    rows = [{c: rng.choice(domain[c]) for c in columns} for _ in people]
    style = rng.randrange(2)
    if style == 0:
        lines = ["Name | " + " | ".join(columns)]
        lines += [n + " | " + " | ".join(r[c] for c in columns) for n, r in zip(people, rows)]
        text = "\n".join(lines)
    else:
        say = {"Age": "{} is {} years old.", "City": "{} lives in {}.",
               "Colour": "{} likes the colour {}.", "Pet": "{} has a pet {}."}
        parts = [say[c].format(n, r[c]) for n, r in zip(people, rows) for c in columns]
        rng.shuffle(parts)
        text = " ".join(parts)
    at = rng.randrange(len(people))
    column = rng.choice(columns)
    ask, answer = {
        "Age": ("How old is {}?", "{} is {} years old."),
        "City": ("Where does {} live?", "{} lives in {}."),
        "Colour": ("Which colour does {} like?", "{} likes the colour {}."),
        "Pet": ("Which pet does {} have?", "{} has a pet {}."),
    }[column]
    question = text + "\n\n" + ask.format(people[at])
    return exchange("table_fact", question, answer.format(people[at], rows[at][column]))
