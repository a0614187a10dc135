# SPDX-License-Identifier: Apache-2.0
"""The words, names and facts that the tasks draw from."""

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
