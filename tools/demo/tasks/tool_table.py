# SPDX-License-Identifier: Apache-2.0
"""The tools that conversations may offer."""

from .vocabulary import CAPITALS, CITIES, COLOURS, DAYS, NAMES, WORDS

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
