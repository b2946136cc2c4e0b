"""Plurals, third persons and pasts of the words of `builtin:grammar`."""

PLURALS = {
    "bacterium": "bacteria",
    "calf": "calves",
    "child": "children",
    "fungus": "fungi",
    "goose": "geese",
    "loaf": "loaves",
    "midwife": "midwives",
    "ox": "oxen",
    "quiz": "quizzes",
    "shelf": "shelves",
}
PASTS = {
    "build": "built",
    "buy": "bought",
    "drive": "drove",
    "feed": "fed",
    "hide": "hid",
    "know": "knew",
    "lose": "lost",
    "meet": "met",
    "overtake": "overtook",
    "sell": "sold",
    "steal": "stole",
    "uphold": "upheld",
    "win": "won",
    "withdraw": "withdrew",
}
DOUBLED = {"cancel", "hum", "refuel", "scrub", "stop"}


def _with_s(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def plural(noun: str) -> str:
    """The plural of a noun: `boat` -> `boats`, `fisherman` -> `fishermen`, `ox` -> `oxen`."""
    if noun.endswith("man"):
        return noun[:-3] + "men"
    return PLURALS.get(noun) or _with_s(noun)


def third(verb: str) -> str:
    """The third person singular of a verb: `carry` -> `carries`, `lash` -> `lashes`."""
    return _with_s(verb)


def past(verb: str) -> str:
    """The simple past of a verb: `tow` -> `towed`, `carry` -> `carried`, `hide` -> `hid`."""
    if verb in PASTS:
        return PASTS[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in DOUBLED else "") + "ed"


def wants_an(word: str) -> bool:
    """Whether `a` before this word is written `an` (by sound, for the words of this lexicon)."""
    return word[0] in "aeiou" and not word.startswith(("eu", "ew", "uni", "use"))
