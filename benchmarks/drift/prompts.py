"""Seeded chat requests of an invented bank's assistant: seven kinds, thousands of different ones."""

from __future__ import annotations

import random
from typing import Any

SYSTEM = (
    "You are the assistant of Fernwood Bank. Answer politely and in at most three sentences. "
    "If a passage is given, use only facts of the passage."
)
KINDS = ("explain", "fact", "howto", "list", "passage", "support", "write")

_CONCEPTS = [
    "inflation",
    "compound interest",
    "photosynthesis",
    "gravity",
    "a mortgage",
    "an overdraft",
    "evaporation",
    "a haiku",
    "democracy",
    "recycling",
    "the water cycle",
    "a credit score",
    "insulation",
    "a budget",
    "an eclipse",
    "friction",
    "a vaccine",
    "a metaphor",
    "supply and demand",
    "a thermostat",
    "the tides",
    "a solar panel",
    "fermentation",
    "a savings account",
    "encryption",
    "a glacier",
    "the stock market",
    "a magnet",
    "erosion",
    "an echo",
    "a rainbow",
    "electricity",
    "a volcano",
    "a firewall",
    "a password manager",
    "a bond",
    "a debit card",
    "osmosis",
    "an algorithm",
    "the greenhouse effect",
    "a semiconductor",
    "a pension",
    "insurance",
    "a deposit",
    "a currency",
]
_AUDIENCES = [
    "to a child",
    "to a new colleague",
    "in two sentences",
    "with an everyday example",
    "to a retired teacher",
    "as simply as you can",
    "to a student of economics",
    "in plain words",
]
_PLACES = [
    "France",
    "Japan",
    "Brazil",
    "Canada",
    "Egypt",
    "Norway",
    "Kenya",
    "India",
    "Italy",
    "Mexico",
    "Poland",
    "Spain",
    "Turkey",
    "Vietnam",
    "Chile",
    "Greece",
    "Peru",
    "Portugal",
    "Sweden",
    "Ireland",
    "Austria",
    "Morocco",
    "Thailand",
    "Australia",
    "Germany",
    "Finland",
    "Argentina",
    "Iceland",
    "Nepal",
    "Cuba",
]
_FACTS = [
    "What is the capital of {}?",
    "What language do most people speak in {}?",
    "Name a famous dish of {}.",
    "What is the currency of {}?",
    "Name a river or a lake in {}.",
    "What is {} known for?",
    "On which continent is {}?",
    "What is the weather like in {} in winter?",
]
_TASKS = [
    "boil an egg",
    "clean a window",
    "write a polite e-mail",
    "plant tomatoes",
    "tie a tie",
    "fold a shirt",
    "pack a suitcase",
    "choose a ripe melon",
    "save electricity",
    "back up a laptop",
    "remember names",
    "make tea",
    "change a light bulb",
    "prepare for an interview",
    "keep a cactus alive",
    "paint a door",
    "sharpen a pencil",
    "bake bread",
    "learn vocabulary",
    "plan a weekly budget",
    "remove a coffee stain",
    "store onions",
    "wrap a present",
    "water plants while away",
    "set up a desk",
]
_ASKS = [
    "How do I {}?",
    "Give me three steps to {}.",
    "What should I avoid when I want to {}?",
    "Any tip on how to {}?",
]
_THINGS = [
    "fruits",
    "oceans",
    "musical instruments",
    "board games",
    "sports",
    "trees",
    "vegetables",
    "metals",
    "planets",
    "tools",
    "birds",
    "flowers",
    "desserts",
    "colours",
    "mammals",
    "cheeses",
    "spices",
    "fabrics",
    "gemstones",
    "vehicles",
    "insects",
    "herbs",
    "shapes",
    "pieces of furniture",
    "fish",
]
_LISTS = [
    "Name three {}.",
    "List four {} and say one word about each.",
    "Which {} would you recommend to a beginner? Name two.",
    "Give me two {} that start with different letters.",
    "Name five {} in alphabetical order.",
]
_ISSUES = [
    "my card was declined",
    "I forgot my PIN",
    "a transfer has not arrived",
    "I was charged twice",
    "I want to close my account",
    "my statement is missing",
    "I moved to a new address",
    "I lost my card abroad",
    "the app does not open",
    "I want a higher limit",
    "I do not recognise a payment",
    "my loan rate changed",
    "I need a letter for my landlord",
    "the cash machine kept my card",
    "I want to open an account for my daughter",
    "my direct debit failed",
]
_MOODS = [
    "Hello, {}. What can I do?",
    "I am a bit worried: {}. Please help.",
    "Good morning! {}, what are the next steps?",
    "{}. This is the second time.",
    "Quick question: {}, whom do I call?",
]
_FORMS = [
    "Write a short poem about {}.",
    "Write one friendly sentence about {}.",
    "Suggest a title for an essay on {}.",
    "Write a two-line advertisement about {}.",
    "Describe {} in ten words.",
    "Write the first sentence of a story about {}.",
]
_TOPICS = [
    "the sea",
    "a small grey cat",
    "an old lighthouse",
    "autumn leaves",
    "a busy market",
    "a quiet library",
    "the first snow",
    "a lost key",
    "a long train ride",
    "a bakery at dawn",
    "the moon",
    "a rainy Monday",
    "a garden gate",
    "a mountain hut",
    "an orchestra",
    "a kite",
    "a new bicycle",
    "a letter",
    "a bridge",
    "a harbour",
]
_NAMES = [
    "Maple",
    "Cedar",
    "Harbour",
    "Summit",
    "Meadow",
    "Granite",
    "Willow",
    "Copper",
    "Juniper",
    "Orchard",
    "Pioneer",
    "Beacon",
]
_PRODUCTS = ["savings plan", "student account", "travel card", "home loan", "business account", "junior account"]
_QUESTIONS = (
    ("interest rate", "What is the interest rate of the {name} {product}?"),
    ("monthly fee", "How much is the monthly fee of the {name} {product}?"),
    ("minimum", "What is the minimum deposit for the {name} {product}?"),
    ("notice", "How many days of notice does the {name} {product} need?"),
)


def requests(seed: int, count: int, weights: dict[str, float] | None = None) -> list[dict[str, Any]]:
    """`count` requests, each with its `kind`, `messages` and `contexts`; the same for the same seed."""
    rng = random.Random(seed)
    shares = [(weights or {}).get(kind, 1.0) for kind in KINDS]
    return [_request(rng, kind) for kind in rng.choices(KINDS, shares, k=count)]


def passage(rng: random.Random) -> tuple[str, str, str]:
    """A passage about an invented product, its name and its kind."""
    name, product = rng.choice(_NAMES), rng.choice(_PRODUCTS)
    rate, fee = rng.randrange(5, 80) / 10, rng.randrange(0, 25)
    text = (
        f"The {name} {product} of Fernwood Bank has an interest rate of {rate} percent a year. The monthly fee is {fee}"
        f" dollars. The minimum deposit is {rng.randrange(1, 60) * 50} dollars. It can be ended with a notice of"
        f" {rng.choice((7, 14, 30, 60, 90))} days. It was introduced in {rng.randrange(1998, 2024)}."
    )
    return text, name, product


def _request(rng: random.Random, kind: str) -> dict[str, Any]:
    contexts: list[str] = []
    match kind:
        case "explain":
            question = f"Explain {rng.choice(_CONCEPTS)} {rng.choice(_AUDIENCES)}."
        case "fact":
            question = rng.choice(_FACTS).format(rng.choice(_PLACES))
        case "howto":
            question = rng.choice(_ASKS).format(rng.choice(_TASKS))
        case "list":
            question = rng.choice(_LISTS).format(rng.choice(_THINGS))
        case "support":
            question = rng.choice(_MOODS).format(rng.choice(_ISSUES))
        case "write":
            question = rng.choice(_FORMS).format(rng.choice(_TOPICS))
        case _:
            text, name, product = passage(rng)
            contexts = [text]
            question = rng.choice(_QUESTIONS)[1].format(name=name, product=product)
    return {"kind": kind, "question": question, "contexts": contexts}


def messages(request: dict[str, Any], system: str | None = SYSTEM) -> list[dict[str, str]]:
    """The request as chat messages, its passages in front of the question."""
    passages = "\n".join(request["contexts"])
    content = f"Passage: {passages}\n\n{request['question']}" if request["contexts"] else request["question"]
    said = [{"role": "user", "content": content}]
    return [{"role": "system", "content": system}, *said] if system else said
