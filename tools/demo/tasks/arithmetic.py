# SPDX-License-Identifier: Apache-2.0
"""Sums, tables up to twelve, comparing and counting."""

from .conversation import exchange


def operand(rng):
    return rng.randrange(10 ** rng.choice([1, 2, 2, 3, 3, 3]))


def addition(rng):
    a, b = operand(rng), operand(rng)
    form = rng.choice(["What is {} + {}?", "What is {} + {}?", "Add {} and {}.", "{} + {} =",
                       "Calculate {} + {}.", "How much is {} plus {}?"])
    return exchange("addition", form.format(a, b), f"{a} + {b} = {a + b}", f"{a},{b}")


def subtraction(rng):
    a, b = sorted((operand(rng), operand(rng)), reverse=True)
    form = rng.choice(["What is {} - {}?", "What is {} - {}?", "{} - {} =", "Calculate {} - {}.",
                       "How much is {} minus {}?"])
    return exchange("subtraction", form.format(a, b), f"{a} - {b} = {a - b}", f"{a},{b}")


def times_table(rng):
    a, b = rng.randrange(13), rng.randrange(13)
    form = rng.choice(["What is {} * {}?", "What is {} times {}?", "{} * {} =",
                       "Multiply {} by {}."])
    found = exchange("times_table", form.format(a, b), f"{a} * {b} = {a * b}")
    found.key = ""  # a table to be known by heart: nothing is held out
    return found


def compare(rng):
    a, b = rng.sample(range(1000), 2)
    larger = rng.random() < 0.5
    word = rng.choice(["larger", "bigger"] if larger else ["smaller"])
    answer = max(a, b) if larger else min(a, b)
    return exchange("compare", f"Which number is {word}, {a} or {b}?", f"{answer}", f"{a},{b}")


def count(rng):
    first = rng.randrange(60)
    last = first + rng.randrange(2, 25)
    if rng.random() < 0.25:
        numbers = range(last, first - 1, -1)
    else:
        numbers = range(first, last + 1)
    question = f"Count from {numbers[0]} to {numbers[-1]}."
    return exchange("count", question, ", ".join(map(str, numbers)))
