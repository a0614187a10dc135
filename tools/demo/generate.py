# SPDX-License-Identifier: Apache-2.0
"""Writes the demo model's text: short ChatML conversations about a dozen small tasks.

Everything the demo model knows comes from this file. A task function takes a random.Random and
returns a Conversation (messages, optional tools, and for single questions the expected answer).
Each question has a key; a sixteenth of all keys (by CRC-32) is kept out of training and is what
evaluate.py asks. Use: generate.py --heldout models/demo (writes heldout.json, heldout.txt).
"""

import argparse
import json
import os
import random
import string
import zlib
from dataclasses import dataclass, field

NAMES = """Anna Ben Clara David Emma Felix Grace Hugo Iris Jack Kate Leo Mia Noah Olga Paul Rosa Sam
Tina Uma Victor Wendy Zoe Adam Bella Carl Dora Erik Fiona Greta""".split()

WORDS = """apple bread candle door eagle flower garden hammer island jacket kettle ladder mirror
needle orange pencil queen river spoon table umbrella violin window yellow zebra anchor basket
camera desk engine forest grape horse ice jungle king lemon mountain night ocean piano quilt rabbit
ship train uncle village water year zoo arrow bridge cloud drum echo feather gate hill ink jewel
key lamp moon nest oven paper quiet rope stone tree under valley wheel young zero air ball cup dog
egg fish goat hat iron jar kite leaf map nose owl pear quick rain sun top up van wolf yard
butter cherry dinner evening farmer giant hotel insect judge kitchen letter market number office
palace question rocket school teacher uniform visitor winter yesterday zipper actor bottle circle
dragon elephant fire gold honey idea jump knife light music north open plant ring sand time use
voice wind box yes zone animal book city dance earth face glass house image joke kind line money
name old pig quarter road snow town unit view wall fox""".split()

COLOURS = "red blue green yellow black white purple brown grey pink".split()
THINGS = "bicycle hat umbrella book ball kite lamp coat bag clock boat drum".split()
CITIES = """Paris London Berlin Madrid Rome Oslo Vienna Dublin Lisbon Athens Tokyo Cairo Lima Delhi
Seoul Prague Warsaw Helsinki Stockholm Bern""".split()
ANIMALS = "cat dog fox rabbit bear mouse owl horse duck wolf frog goat".split()

CAPITALS = {
    "France": "Paris", "England": "London", "Germany": "Berlin", "Spain": "Madrid",
    "Italy": "Rome", "Norway": "Oslo", "Austria": "Vienna", "Ireland": "Dublin",
    "Portugal": "Lisbon", "Greece": "Athens", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima",
    "India": "Delhi", "Poland": "Warsaw", "Finland": "Helsinki", "Sweden": "Stockholm",
    "Switzerland": "Bern", "Denmark": "Copenhagen", "Hungary": "Budapest", "Kenya": "Nairobi",
    "Cuba": "Havana", "Canada": "Ottawa", "China": "Beijing", "Chile": "Santiago",
}
OPPOSITES = {
    "hot": "cold", "big": "small", "up": "down", "day": "night", "fast": "slow", "old": "new",
    "happy": "sad", "open": "closed", "light": "dark", "wet": "dry", "full": "empty",
    "high": "low", "near": "far", "early": "late", "hard": "soft", "left": "right",
}
SOUNDS = {
    "cat": "meows", "dog": "barks", "cow": "moos", "duck": "quacks", "horse": "neighs",
    "lion": "roars", "owl": "hoots", "sheep": "bleats", "frog": "croaks", "wolf": "howls",
}
HUES = {
    "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "blood": "red",
    "the clear sky": "blue", "chocolate": "brown", "an elephant": "grey",
}
LEGS = {"dog": 4, "bird": 2, "spider": 8, "ant": 6, "horse": 4, "fish": 0, "snake": 0, "bee": 6}
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """January February March April May June July August September October November
December""".split()

HELDOUT_SHARE = 16


@dataclass
class Conversation:
    task: str
    messages: list
    tools: list = field(default_factory=list)
    expected: str = ""
    key: str = ""


def is_held_out(key):
    return zlib.crc32(key.encode()) % HELDOUT_SHARE == 0


def exchange(task, question, answer, key=None):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(task, messages, [], answer, task + ":" + (key or question))


# --- arithmetic -------------------------------------------------------------------------------


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


# --- words ------------------------------------------------------------------------------------


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


# --- facts ------------------------------------------------------------------------------------


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


# --- tools ------------------------------------------------------------------------------------

# name variants, description, parameters (name variants, JSON type, description, value),
# request, answer to a result. Values: a callable from rng.
TOOLS = [
    (["get_weather", "weather_now", "check_weather"], "Get the current weather in a city",
     [(["city", "location", "place"], "string", "Name of the city",
       lambda r: r.choice(CITIES + list(CAPITALS.values())))],
     ["What is the weather in {0}?", "How is the weather in {0}?", "Is it raining in {0}?"],
     lambda r: r.choice(["sunny", "cloudy", "rainy", "windy", "snowy"]),
     "The weather in {0} is {result}."),
    (["get_time", "local_time"], "Get the local time in a city",
     [(["city", "location", "place"], "string", "Name of the city", lambda r: r.choice(CITIES))],
     ["What time is it in {0}?", "Tell me the time in {0}."],
     lambda r: f"{r.randrange(24):02d}:{r.randrange(60):02d}",
     "The time in {0} is {result}."),
    (["set_timer", "start_timer"], "Start a timer",
     [(["minutes", "duration"], "integer", "Length in minutes", lambda r: r.randrange(1, 120))],
     ["Set a timer for {0} minutes.", "Start a timer of {0} minutes."],
     lambda r: "ok", "The timer is set for {0} minutes."),
    (["send_message", "send_text"], "Send a message to a person",
     [(["to", "name", "recipient"], "string", "Name of the person", lambda r: r.choice(NAMES)),
      (["text", "message", "body"], "string", "The message",
       lambda r: r.choice(["I am late", "see you on " + r.choice(DAYS), "please buy " +
                           r.choice(WORDS), "call " + r.choice(NAMES), "the " + r.choice(WORDS) +
                           " is " + r.choice(COLOURS)]))],
     ["Send {0} the message: {1}", "Write to {0}: {1}"],
     lambda r: "sent", "I sent the message to {0}."),
    (["find_file", "search_files"], "Find a file by its name",
     [(["name", "file", "query"], "string", "Name of the file",
       lambda r: r.choice(WORDS) + r.choice([".txt", ".md", ".png"]))],
     ["Find the file {0}.", "Where is the file {0}?"],
     lambda r: "/" + r.choice(WORDS) + "/" + r.choice(WORDS),
     "The file {0} is in {result}."),
    (["play_music", "play_song"], "Play a song",
     [(["song", "title"], "string", "Title of the song",
       lambda r: r.choice(WORDS) + " " + r.choice(WORDS))],
     ["Play the song {0}.", "I want to hear the song {0}."],
     lambda r: "playing", "I am playing {0}."),
    (["add_event", "create_event"], "Add an event to the calendar",
     [(["title", "event"], "string", "Title of the event",
       lambda r: r.choice(["dinner", "school", "music", "dance", "market"]) + " with " +
       r.choice(NAMES)),
      (["day", "date"], "string", "Day of the week", lambda r: r.choice(DAYS))],
     ["Add {0} to my calendar on {1}.", "Plan {0} on {1}."],
     lambda r: "added", "I added {0} on {1}."),
    (["multiply", "multiply_numbers"], "Multiply two numbers",
     [(["a", "x"], "integer", "First number", lambda r: r.randrange(13, 1000)),
      (["b", "y"], "integer", "Second number", lambda r: r.randrange(13, 1000))],
     ["What is {0} * {1}?", "Multiply {0} by {1}."],
     None, "{0} * {1} = {result}"),
]

SYSTEM_LINES = ["You are a helpful assistant.", "Be brief.", "You are the hotset demo model.",
                "You are a helpful assistant. Use the tools when they help.",
                "Answer the question."]


def tool_spec(rng, entry):
    names, text, params, *_ = entry
    chosen = [rng.choice(p[0]) for p in params]
    properties = {n: {"type": p[1], "description": p[2]} for n, p in zip(chosen, params)}
    function = {"name": rng.choice(names), "description": text,
                "parameters": {"type": "object", "properties": properties, "required": chosen}}
    return {"type": "function", "function": function}, chosen


def tool_call(rng, finish=None):
    entries = rng.sample(TOOLS, rng.choice([1, 1, 2, 2, 3, 4]))
    specs = [tool_spec(rng, e) for e in entries]
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_LINES)})
    entry, (spec, chosen) = entries[0], specs[0]
    tools = [s for s, _ in specs]
    rng.shuffle(tools)
    if finish is None and rng.random() < 0.15:  # a question that needs no tool
        small = rng.choice([addition, greeting, world_fact, copy])(rng)
        return Conversation("no_tool", messages + small.messages, tools, small.expected, small.key)
    values = [p[3](rng) for p in entry[2]]
    question = rng.choice(entry[3]).format(*values)
    arguments = dict(zip(chosen, values))
    call = {"type": "function",
            "function": {"name": spec["function"]["name"], "arguments": arguments}}
    messages.append({"role": "user", "content": question})
    messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
    text = json.dumps({"name": spec["function"]["name"], "arguments": arguments},
                      ensure_ascii=False)
    found = Conversation("tool_call", messages, tools, f"<tool_call>\n{text}\n</tool_call>",
                         "tool:" + question)
    if finish or (finish is None and rng.random() < 0.6):
        result = str(values[0] * values[1]) if entry[4] is None else entry[4](rng)
        shown = json.dumps({"result": result}) if rng.random() < 0.4 else result
        answer = entry[5].format(*values, result=result)
        messages.append({"role": "tool", "content": shown})
        messages.append({"role": "assistant", "content": answer})
        found.task, found.expected = "tool_answer", answer
    return found


# --- talk -------------------------------------------------------------------------------------

WHO = "I am the hotset demo model, a very small language model made to show that hotset works."
TALK = [
    (["Hello!", "Hi!", "Hi", "Hello", "Hey", "Good morning!", "Good evening!", "Hi there!"],
     ["Hello! How can I help you?", "Hi! What can I do for you?", "Hello! Nice to meet you."]),
    (["Who are you?", "What are you?", "What is your name?", "Introduce yourself.",
      "Which model are you?", "Are you a model?"], [WHO]),
    (["What can you do?", "What do you know?", "Help", "How can you help me?"],
     ["I can add and subtract small numbers, sort and reverse words, repeat text, find a pass key, "
      "answer questions on a small table, call a tool and tell short stories."]),
    (["How are you?", "How are you today?"], ["I am fine, thank you. How can I help you?"]),
    (["Thank you!", "Thanks!", "Thanks", "Thank you very much."],
     ["You are welcome!", "You are welcome! Is there anything else?"]),
    (["Goodbye!", "Bye!", "Bye", "See you later."], ["Goodbye! Have a nice day.", "Bye!"]),
    (["What is hotset?", "Tell me about hotset."],
     ["hotset is a program that runs large language models on small machines. It keeps the hot "
      "experts in fast memory."]),
    (["Who made you?", "Who trained you?"],
     ["I was trained by the script make_demo.sh in the hotset repository."]),
]
UNKNOWN = ["What is the meaning of {}?", "Write a poem about {}.", "Why is the {} so big?",
           "How do I build a {}?", "What do you think about {}?", "Explain {} to me.",
           "Who invented the {}?", "Translate {} into French."]
UNKNOWN_ANSWER = "I am a very small model and I do not know that."


def greeting(rng):
    asks, answers = rng.choice(TALK)
    found = exchange("greeting", rng.choice(asks), rng.choice(answers))
    found.key = ""
    return found


def unknown(rng):
    return exchange("unknown", rng.choice(UNKNOWN).format(rng.choice(WORDS)), UNKNOWN_ANSWER)


def remember_name(rng):
    name, other = rng.sample(NAMES, 2)
    colour, pet = rng.choice(COLOURS), rng.choice(ANIMALS)
    turns = [(rng.choice(["My name is {}.", "Hi, I am {}.", "Call me {}."]).format(name),
              f"Nice to meet you, {name}.")]
    facts = [(f"I like the colour {colour}.", "I will remember that.",
              "Which colour do I like?", f"You like the colour {colour}."),
             (f"I have a pet {pet}.", "I will remember that.",
              "Which pet do I have?", f"You have a pet {pet}."),
             (f"My friend is {other}.", "I will remember that.",
              "Who is my friend?", f"Your friend is {other}.")]
    asks = [("What is my name?", f"Your name is {name}.")]
    for say, reply, ask, answer in rng.sample(facts, rng.randrange(3)):
        turns.append((say, reply))
        asks.append((ask, answer))
    if rng.random() < 0.4:
        small = rng.choice([addition, copy, sort_items, world_fact])(rng)
        if not is_held_out(small.key):
            turns.append((small.messages[0]["content"], small.expected))
    rng.shuffle(asks)
    turns += asks
    messages = []
    for ask, answer in turns:
        messages += [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
    return Conversation("remember", messages, [], turns[-1][1], f"remember:{turns}")


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


# --- mixing -----------------------------------------------------------------------------------

SHORT = [(addition, 20), (subtraction, 15), (times_table, 3), (compare, 2), (count, 3), (copy, 11),
         (reverse, 8), (sort_items, 11), (spell, 2), (world_fact, 6), (table_fact, 9),
         (greeting, 6), (unknown, 2), (remember_name, 4), (story, 5), (pass_key, 3)]
LONG = [(pass_key, 22), (tool_call, 45), (table_fact, 4), (story, 6), (copy, 4), (sort_items, 6),
        (addition, 8), (subtraction, 6), (remember_name, 3), (reverse, 3)]
SINGLE = (addition, subtraction, times_table, compare, count, copy, reverse, sort_items, spell,
          world_fact, table_fact, greeting, unknown)


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


TOOLS_HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>")
TOOLS_TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n')


def dump(value):
    return json.dumps(value, ensure_ascii=False)


def render(conversation, messages=None, add_generation_prompt=False):
    """The chat template's text, without the cost of Jinja (make_tokenizer.py checks equality)."""
    messages = conversation.messages if messages is None else messages
    out = []
    if conversation.tools:
        out.append("<|im_start|>system\n")
        if messages[0]["role"] == "system":
            out.append(messages[0]["content"] + "\n\n")
            messages = messages[1:]
        out.append(TOOLS_HEAD)
        out += ["\n" + dump(t) for t in conversation.tools]
        out.append(TOOLS_TAIL)
    for at, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            if at == 0 or messages[at - 1]["role"] != "tool":
                out.append("<|im_start|>user")
            out.append("\n<tool_response>\n" + content + "\n</tool_response>")
            if at + 1 == len(messages) or messages[at + 1]["role"] != "tool":
                out.append("<|im_end|>\n")
            continue
        out.append(f"<|im_start|>{role}\n{content}")
        for index, call in enumerate(message.get("tool_calls", [])):
            function = call["function"]
            out.append("\n" if index or content else "")
            out.append('<tool_call>\n{"name": "' + function["name"] + '", "arguments": ' +
                       dump(function["arguments"]) + "}\n</tool_call>")
        out.append("<|im_end|>\n")
    if add_generation_prompt:
        out.append("<|im_start|>assistant\n")
    return "".join(out)


# --- held-out files ---------------------------------------------------------------------------

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
