# SPDX-License-Identifier: Apache-2.0
"""Writes the demo model's text: short ChatML conversations about a dozen small tasks (tasks/).

Everything the demo model knows comes from these files. Each question has a key; a sixteenth of
all keys (by CRC-32) is kept out of training and is what evaluate.py asks. Python alone, any 3.11.
Use: generate.py --heldout models/demo (writes heldout.json, heldout.txt).
"""

import argparse
import json
import os
import random

from tasks.arithmetic import addition, compare, count, subtraction, times_table
from tasks.chat_text import render
from tasks.conversation import is_held_out
from tasks.facts import table_fact, world_fact
from tasks.pass_key import pass_key
from tasks.stories import story
from tasks.talk import SYSTEM_LINES, greeting, remember_name, unknown
from tasks.tool_use import tool_call
from tasks.word_games import copy, reverse, sort_items, spell

SHORT = [(addition, 20), (subtraction, 15), (times_table, 3), (compare, 2), (count, 3), (copy, 11),
         (reverse, 8), (sort_items, 11), (spell, 2), (world_fact, 6), (table_fact, 9),
         (greeting, 6), (unknown, 2), (remember_name, 4), (story, 5), (pass_key, 3)]
LONG = [(pass_key, 22), (tool_call, 45), (table_fact, 4), (story, 6), (copy, 4), (sort_items, 6),
        (addition, 8), (subtraction, 6), (remember_name, 3), (reverse, 3)]


def pick(rng, table):
    makers, weights = zip(*table)
    return rng.choices(makers, weights)[0]


def training_conversation(rng, table):
    """One conversation without any held-out question; some of several turns."""
    while True:
        found = pick(rng, table)(rng)
        if not (found.key and is_held_out(found.key)):
            break
    if found.tools:
        return found
    if rng.random() < 0.3:
        for _ in range(rng.randrange(1, 4)):
            more = pick(rng, SHORT)(rng)
            if more.task in ("pass_key", "remember") or (more.key and is_held_out(more.key)):
                continue
            found.messages = found.messages + more.messages
    if rng.random() < 0.25:
        line = rng.choice(SYSTEM_LINES)
        found.messages = [{"role": "system", "content": line}] + found.messages
    return found


# task, maker, number of items; the long ones are fewer to keep the file small
HELDOUT_TASKS = [("addition", addition, 100), ("subtraction", subtraction, 100),
                 ("copy", copy, 100), ("reverse", reverse, 100), ("sort", sort_items, 100),
                 ("pass_key", pass_key, 60), ("table_fact", table_fact, 100),
                 ("world_fact", world_fact, 60), ("tool_call", lambda r: tool_call(r, False), 40),
                 ("tool_answer", lambda r: tool_call(r, True), 20)]
PASS_KEY_SENTENCES = [6, 12, 30, 105]  # prompts of about 80 to 850 tokens


def heldout_items():
    rng = random.Random("held out")
    items = []
    for task, maker, number in HELDOUT_TASKS:
        seen = set()
        while len(seen) < number:
            if task == "pass_key":
                found = pass_key(rng, PASS_KEY_SENTENCES[len(seen) % 4])
            else:
                found = maker(rng)
            asked = found.messages[:-1]
            prompt = render(found, asked, add_generation_prompt=True)
            if (found.key and not is_held_out(found.key)) or prompt in seen:
                continue
            seen.add(prompt)
            item = {"task": task, "messages": asked}
            if found.tools:
                item["tools"] = found.tools
            items.append({**item, "prompt": prompt, "expected": found.expected})
    return items


def heldout_text(characters):
    rng = random.Random("held-out text")
    parts, total = [], 0
    makers = [maker for _, maker, _ in HELDOUT_TASKS]
    makers += [story, story, remember_name, count, spell, compare]
    while total < characters:
        found = rng.choice(makers)(rng)
        if found.key and not is_held_out(found.key):
            continue
        parts.append(render(found))
        total += len(parts[-1])
    return "".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heldout", help="folder to write heldout.json and heldout.txt into")
    parser.add_argument("--characters", type=int, default=100000)
    parser.add_argument("--sample", type=int, default=0, help="print that many conversations")
    args = parser.parse_args()
    rng = random.Random(1)
    for _ in range(args.sample):
        print(render(training_conversation(rng, LONG if rng.random() < 0.3 else SHORT)))
    if args.heldout:
        os.makedirs(args.heldout, exist_ok=True)
        with open(os.path.join(args.heldout, "heldout.json"), "w") as file:
            json.dump(heldout_items(), file, ensure_ascii=False, indent=0)
            file.write("\n")
        with open(os.path.join(args.heldout, "heldout.txt"), "w") as file:
            file.write(heldout_text(args.characters))


if __name__ == "__main__":
    main()
