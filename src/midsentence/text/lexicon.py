"""The words of `builtin:grammar`. Written for this project; `morphology` inflects them.

Lists are in order of rank: the first word of a list is the most frequent one. Any verb of a topic
makes sense with any object of the same topic, so that the two can be drawn independently.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product
from typing import Any

TENSES = ("past", "present", "future")
NUMBERS = ("singular", "plural")
SENTIMENTS = ("positive", "neutral", "negative")
FORMS = ("statement", "question", "negation")

Words = tuple[str, ...]


@dataclass(frozen=True)
class Topic:
    """What one subject matter contributes: who acts, on what, how it is described, and where."""

    agents: Words
    objects: Words
    verbs: Words
    adjectives: Words
    places: Words


@dataclass(frozen=True)
class Lexicon:
    """Every word list of the English grammar; verbs and nouns in their base form."""

    topics: dict[str, Topic]
    people: Words
    towns: Words
    prepositions: Words
    audiences: Words
    determiners: dict[str, Words]  # by number
    times: dict[str, Words]  # by tense
    adverbs: dict[str, Words]  # this and the following by sentiment
    qualities: dict[str, Words]
    feelings: dict[str, Words]
    effects: dict[str, Words]
    bonds: dict[str, Words]

    def cut(self, topics: int, words: int) -> Lexicon:
        """The first `topics`, and the first `words` of every list: for grammars to enumerate."""

        def shorter(found: Any) -> Any:
            if isinstance(found, tuple):
                return found[:words]
            if isinstance(found, Topic):
                return Topic(**{f.name: shorter(getattr(found, f.name)) for f in fields(Topic)})
            return {key: shorter(value) for key, value in found.items()}

        lists: dict[str, Any] = {f.name: shorter(getattr(self, f.name)) for f in fields(self)}
        return Lexicon(**lists | {"topics": dict(list(lists["topics"].items())[:topics])})


def _topic(agents: str, objects: str, verbs: str, adjectives: str, places: str) -> Topic:
    return Topic(*map(_words, (agents, objects, verbs, adjectives, places)))


def _words(text: str) -> Words:
    return tuple(text.split())


def _phrases(text: str) -> Words:
    return tuple(phrase.strip() for phrase in text.split("/"))


def _coined(beginnings: str, endings: str) -> Words:
    # Diagonal by diagonal, so that frequent names do not all share one beginning.
    pairs = list(product(enumerate(beginnings.split()), enumerate(endings.split())))
    pairs.sort(key=lambda pair: (pair[0][0] + pair[1][0], pair[0][0]))
    return tuple(head + tail for (_, head), (_, tail) in pairs)


TOPICS = {
    "sea": _topic(
        "sailor captain fisherman diver skipper pirate helmsman smuggler navigator admiral "
        "whaler lifeguard",
        "boat ship net sail anchor rope raft mast oar canoe barrel lantern compass rudder buoy "
        "hull dinghy ferry trawler yacht cable hook paddle periscope",
        "repair haul tow secure moor salvage scrub unload lower hoist fasten lash",
        "wooden rusty weathered tarred floating drifting seaworthy salty waterlogged barnacled",
        "harbour lighthouse pier beach dock bay quay reef",
    ),
    "kitchen": _topic(
        "cook baker chef waiter butcher grocer innkeeper brewer caterer confectioner cheesemaker "
        "dishwasher",
        "soup pie cake stew loaf salad pudding roast omelette sandwich pancake sausage dumpling "
        "biscuit tart curry dish pastry pizza casserole burger waffle muffin trifle",
        "serve taste prepare season slice share warm order burn garnish devour finish",
        "spicy sweet creamy crispy smoky steaming buttery frozen fruity peppery",
        "kitchen market restaurant bakery pantry tavern cellar canteen",
    ),
    "school": _topic(
        "teacher student pupil professor tutor librarian scholar headmaster lecturer graduate "
        "classmate janitor",
        "book lesson story essay poem chapter exercise puzzle lecture riddle textbook notebook "
        "dictionary diagram atlas quiz equation timetable proverb fable verse worksheet sonnet "
        "alphabet",
        "study explain correct copy discuss translate memorise revise quote summarise illustrate "
        "simplify",
        "difficult easy puzzling lengthy historical handwritten memorable unfinished poetic "
        "rhyming",
        "library classroom playground campus corridor blackboard dormitory gymnasium",
    ),
    "farm": _topic(
        "farmer shepherd gardener rancher beekeeper ploughman milkmaid dairyman drover goatherd "
        "stablehand thresher",
        "cow pig goat hen lamb goose donkey calf bull duck chicken mule turkey rooster piglet ox "
        "mare ewe ram foal heifer duckling stallion gosling",
        "feed sell count chase buy herd brush water groom raise shelter tether",
        "hungry muddy stubborn woolly spotted fat tame brown newborn horned",
        "barn meadow stable orchard pasture pond windmill haystack",
    ),
    "hospital": _topic(
        "doctor nurse surgeon dentist pharmacist physician paramedic midwife therapist orderly "
        "optician psychiatrist",
        "patient child baby boy girl stranger traveller grandmother widow toddler victim veteran "
        "grandfather tourist orphan pensioner teenager refugee infant miner climber twin hiker "
        "newcomer",
        "treat examine comfort cure reassure diagnose rescue bandage monitor vaccinate revive "
        "discharge",
        "injured pale feverish wounded dizzy sleepless coughing bleeding bedridden allergic",
        "hospital clinic ward pharmacy ambulance infirmary sickroom sanatorium",
    ),
    "music": _topic(
        "singer musician pianist drummer composer violinist conductor guitarist organist cellist "
        "trumpeter choirmaster",
        "song melody tune symphony hymn waltz ballad anthem opera sonata lullaby duet march chorus "
        "overture carol concerto serenade tango fugue polka nocturne rhapsody cantata",
        "play perform rehearse record compose hum practise arrange conduct improvise transpose "
        "orchestrate",
        "slow haunting melodious solemn rhythmic lyrical orchestral tuneful baroque syncopated",
        "theatre stage studio chapel ballroom auditorium bandstand conservatory",
    ),
    "court": _topic(
        "lawyer judge clerk detective magistrate prosecutor juror sheriff barrister solicitor "
        "bailiff notary",
        "case contract verdict appeal treaty warrant sentence lawsuit complaint petition "
        "confession testimony clause settlement licence alibi patent statute deed charter "
        "accusation mortgage decree affidavit",
        "dismiss challenge reject dispute contest verify overturn uphold cite withdraw scrutinise "
        "ratify",
        "legal controversial confidential valid forged binding unsigned fraudulent sworn "
        "contentious",
        "courtroom prison archive jail chamber tribunal registry embassy",
    ),
    "sport": _topic(
        "player coach runner champion goalkeeper swimmer referee striker sprinter wrestler skater "
        "gymnast",
        "match game race tournament final championship marathon relay round sprint derby rally "
        "semifinal fixture playoff rematch heat bout regatta qualifier triathlon decathlon "
        "pentathlon biathlon",
        "win lose watch join enter attend organise cancel postpone abandon dominate forfeit",
        "national friendly international tough regional annual outdoor amateur indoor competitive",
        "stadium arena track gym pitch clubhouse pavilion velodrome",
    ),
    "transport": _topic(
        "driver passenger mechanic engineer porter inspector commuter guard signalman dispatcher "
        "stationmaster stoker",
        "train bus taxi truck carriage wagon van tram lorry bicycle locomotive engine express "
        "motorcycle minibus scooter caravan tanker shuttle trolley jeep sleeper monorail railcar",
        "drive stop park delay steer approach refuel overtake halt service damage photograph",
        "crowded fast electric empty noisy yellow overnight diesel punctual battered",
        "station platform bridge tunnel depot junction crossing viaduct",
    ),
    "science": _topic(
        "scientist researcher chemist physicist biologist astronomer inventor technician botanist "
        "geologist assistant zoologist",
        "sample crystal cell fossil gene mineral virus molecule seed particle specimen protein "
        "compound electron enzyme bacterium meteorite microbe isotope proton fungus polymer "
        "neutron antibody",
        "measure observe analyse identify compare classify detect investigate isolate weigh "
        "catalogue simulate",
        "rare unknown toxic unstable organic magnetic synthetic radioactive microscopic "
        "transparent",
        "laboratory museum observatory institute greenhouse volcano crater centrifuge",
    ),
    "castle": _topic(
        "king queen knight prince princess duke wizard archer baron squire jester sentry",
        "crown sword ring jewel shield throne dagger necklace banner scroll helmet goblet cloak "
        "spear tapestry ruby sceptre amulet chalice emerald lance casket sapphire breastplate",
        "steal hide seize inherit recover demand bury conceal polish display surrender covet",
        "golden royal silver sacred enchanted cursed priceless legendary ornate jewelled",
        "castle palace tower dungeon courtyard moat gatehouse drawbridge",
    ),
    "workshop": _topic(
        "carpenter builder blacksmith plumber weaver potter electrician mason joiner roofer "
        "glazier upholsterer",
        "chair table door window bench desk shelf cupboard ladder mirror lamp cabinet stool drawer "
        "wardrobe bookcase crate cradle staircase fireplace dresser workbench sideboard footstool",
        "build mend replace design restore decorate install assemble carve sand varnish dismantle",
        "heavy sturdy broken narrow antique square wobbly folding rickety walnut",
        "workshop garage shed yard warehouse attic forge sawmill",
    ),
}

ENGLISH = Lexicon(
    topics=TOPICS,
    people=_coined(
        "al be cor da el fen gar hal is jo ka lor mi nor ol per ro sel ta vi",
        "ra lin dor mira nna ric sa van wen tho bel cus dia fred gan la mond nys rion zette",
    ),
    towns=_coined(
        "mar win hol ash brim cal dun ever fal gren hart kel lang mil north oak pen raven sil "
        "thorn",
        "low ford ton bury wick dale field ham stead worth bourne combe gate hurst mere port shaw "
        "stow well cliffe",
    ),
    prepositions=("near", "behind", "beside", "outside", "opposite"),
    audiences=_phrases(
        "everyone / the whole town / the crowd / the family / the mayor / the press"
    ),
    determiners={
        "singular": _phrases("the / a / this / one"),
        "plural": _phrases("the / some / two / many / these"),
    },
    times={
        "past": _phrases(
            "yesterday / last week / last night / last year / this morning / last month / "
            "two days ago / last summer / long ago / last winter"
        ),
        "present": _phrases(
            "today / every day / now / every morning / every week / these days / every evening / "
            "most days / at the moment / every night"
        ),
        "future": _phrases(
            "tomorrow / soon / next week / next year / next month / in a few days / next summer / "
            "tonight / before long / next winter"
        ),
    },
    adverbs={
        "positive": _words(
            "happily proudly gladly cheerfully eagerly joyfully skilfully kindly gracefully "
            "bravely merrily lovingly"
        ),
        "neutral": _words(
            "quickly slowly quietly carefully usually calmly suddenly simply briefly routinely "
            "silently formally"
        ),
        "negative": _words(
            "sadly angrily badly grimly reluctantly bitterly carelessly nervously gloomily rudely "
            "miserably clumsily"
        ),
    },
    qualities={
        "positive": _words(
            "happy clever kind brave cheerful gentle generous brilliant proud charming skilful "
            "graceful"
        ),
        "neutral": _words(
            "young old tall local quiet busy thin foreign famous bearded retired left-handed"
        ),
        "negative": _words(
            "angry lazy cruel weary gloomy rude careless jealous clumsy bitter selfish miserable"
        ),
    },
    feelings={
        "positive": _words(
            "pleased glad delighted grateful thrilled satisfied relieved overjoyed impressed "
            "hopeful"
        ),
        "neutral": _words(
            "surprised curious ready silent attentive present awake informed indifferent thoughtful"
        ),
        "negative": _words(
            "upset worried disappointed furious ashamed annoyed afraid unhappy disgusted "
            "heartbroken"
        ),
    },
    effects={
        "positive": _words("please delight encourage amuse inspire cheer"),
        "neutral": _words("surprise interest concern affect involve distract"),
        "negative": _words("annoy worry disappoint frighten offend depress"),
    },
    bonds={
        "positive": _words("admire trust praise love thank respect"),
        "neutral": _words("know meet follow resemble remember visit"),
        "negative": _words("blame fear envy hate mistrust insult"),
    },
)
