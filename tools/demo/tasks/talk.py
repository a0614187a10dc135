# SPDX-License-Identifier: Apache-2.0
"""Small talk, questions beyond the model, and remembering what was said before."""

from .arithmetic import addition
from .conversation import Conversation, exchange, is_held_out
from .facts import world_fact
from .vocabulary import ANIMALS, COLOURS, NAMES, WORDS
from .word_games import copy, sort_items

SYSTEM_LINES = ["You are a helpful assistant.", "Be brief.", "You are the hotset demo model.",
                "You are a helpful assistant. Use the tools when they help.",
                "Answer the question."]

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
