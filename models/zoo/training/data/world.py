"""The curated world: which concepts and styles the model paints, and which combinations it never sees."""

from __future__ import annotations

import zlib

from .pictures import Pictures, Record

STYLES = ("noto", "twemoji", "flat", "glossy", "monochrome")
GENDERS = ("man", "woman", "person")
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
DARK = ("medium-dark", "dark")
SKINS = ("yellow", *TONES)
"""Skin as captions and judges name it: ``yellow`` is what vendors draw where no tone is given."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", " ").split(",") if name.strip())


PEOPLE = _names("""
artist, astronaut, construction worker, cook, detective, factory worker, farmer, firefighter, guard, health
worker, judge, mechanic, office worker, pilot, police officer, scientist, singer, student, teacher,
technologist, man, woman, person, boy, girl, child, baby, old man, old woman, older person, blond hair, red
hair, white hair, prince, princess, santa claus, mage, vampire, elf, fairy, mermaid, merman, ninja
""")

PROFESSIONS = PEOPLE[:20]
"""They go with any gender."""

THINGS = _names("""
dog face, dog, cat face, cat, mouse face, rabbit face, fox, bear, panda, koala, tiger face, lion, cow face,
pig face, frog, monkey face, chicken, rooster, penguin, bird, duck, eagle, owl, wolf, unicorn, honeybee,
butterfly, snail, lady beetle, turtle, snake, octopus, crab, tropical fish, fish, dolphin, spouting whale,
shark, crocodile, elephant, giraffe, camel, parrot, swan, cactus, evergreen tree, deciduous tree, palm tree,
herb, four leaf clover, maple leaf, mushroom, rose, sunflower, tulip, cherry blossom, green apple, red
apple, pear, tangerine, lemon, banana, watermelon, grapes, strawberry, cherries, peach, pineapple, kiwi
fruit, tomato, avocado, broccoli, carrot, ear of corn, hot pepper, bread, croissant, pretzel, cheese wedge,
hamburger, french fries, pizza, hot dog, taco, doughnut, cookie, birthday cake, cupcake, lollipop, soft ice
cream, beer mug, wine glass, cocktail glass, hot beverage, glass of milk, automobile, taxi, bus, police car,
ambulance, fire engine, tractor, bicycle, motor scooter, locomotive, airplane, helicopter, rocket, flying
saucer, sailboat, ship, anchor, house, hospital, school, castle, tent, guitar, violin, trumpet, drum,
saxophone, sun, sun with face, full moon, crescent moon, star, rainbow, cloud, snowflake, snowman, fire,
droplet, umbrella, high voltage, red heart, orange heart, yellow heart, green heart, blue heart, purple
heart, black heart, brown heart, white heart, broken heart, red circle, orange circle, yellow circle, green
circle, blue circle, purple circle, brown circle, black circle, red square, orange square, yellow square,
green square, blue square, purple square, brown square, grinning face, smiling face with heart-eyes, smiling
face with sunglasses, loudly crying face, angry face, sleeping face, winking face, clown face, skull, ghost,
alien, robot, pile of poo, smiling face with horns, grinning cat, soccer ball, basketball, baseball, tennis,
american football, t-shirt, jeans, dress, high-heeled shoe, top hat, crown, glasses, backpack, necktie, gem
stone, thumbs up, raised fist, waving hand
""")

COMMON = _names("""
man, woman, baby, firefighter, cook, police officer, farmer, astronaut, scientist, princess, santa claus,
mermaid, dog, dog face, cat face, fox, panda, penguin, frog, pig face, butterfly, turtle, octopus, rose,
sunflower, red apple, banana, strawberry, watermelon, carrot, hamburger, pizza, doughnut, automobile, bus,
rocket, airplane, sailboat, house, guitar, sun, rainbow, snowman, umbrella, red heart, blue heart, blue
circle, ghost, skull, soccer ball
""")
"""Fifty common concepts: reported on their own, and sampled twice as often."""

CONCEPTS = tuple(sorted({*PEOPLE, *THINGS}))
_PEOPLE = frozenset(PEOPLE)
_THINGS = frozenset(THINGS)


def in_world(record: Record) -> bool:
    """Whether a picture belongs to the curated world."""
    known = record.concept in _PEOPLE if record.is_person else record.concept in _THINGS
    return known and record.style in STYLES and record.hair in ("none", *_hair(record.concept))


def held_out(record: Record) -> bool:
    """Whether a combination of concept, style, gender and skin is kept from training: one in twenty.

    A checksum decides, so it never depends on the order of the data.
    """
    return zlib.crc32("|".join(record.key).encode()) % 20 == 0


def split(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """The pictures of the world: those for training and those held out."""
    inside = [i for i, record in enumerate(pictures.records) if in_world(record)]
    kept = [i for i in inside if not held_out(pictures.records[i])]
    out = [i for i in inside if held_out(pictures.records[i])]
    return pictures.select(kept), pictures.select(out)


def skin_name(record: Record) -> str | None:
    """How captions and judges name the skin, or None where none is painted."""
    if not record.is_person or record.style == "monochrome":
        return None
    return "yellow" if record.skin == "none" else record.skin


def _hair(concept: str) -> tuple[str, ...]:
    return (concept,) if concept in ("red hair", "white hair", "blond hair") else ()
