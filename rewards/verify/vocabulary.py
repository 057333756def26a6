"""The words that may follow a number without changing it: units of measurement, and things that are counted."""

import re

SPELLINGS = {
    "mm": "mm millimeter millimetre",
    "cm": "cm centimeter centimetre",
    "m": "m meter metre",
    "km": "km kilometer kilometre",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard",
    "mi": "mi mile",
    "mg": "mg milligram",
    "g": "g gram",
    "kg": "kg kilo kilogram",
    "ton": "ton tonne",
    "oz": "oz ounce",
    "lb": "lb lbs pound",
    "s": "s sec second",
    "min": "min minute",
    "h": "h hr hour",
    "day": "day",
    "week": "week",
    "month": "month",
    "year": "yr year",
    "dollar": "dollar usd buck $",
    "cent": "cent ¢",
    "euro": "euro eur €",
    "pound sterling": "gbp £",
    "yuan": "yuan rmb cny",
    "yen": "yen jpy ¥",
    "rupee": "rupee inr rs ₹",
    "degree": "degree deg",
    "celsius": "celsius",
    "fahrenheit": "fahrenheit",
    "radian": "radian rad",
    "percent": "percent percentage pct",
    "ml": "ml mL milliliter millilitre",
    "liter": "l L liter litre",
    "gal": "gal gallon",
    "qt": "qt quart",
    "pt": "pint",
    "cup": "cup",
    "acre": "acre",
    "ha": "ha hectare",
    "a.m.": "am a.m",
    "p.m.": "pm p.m",
    "mi/h": "mph",
    "km/h": "kph kmph",
    "N": "N newton",
    "J": "J joule",
    "W": "W watt",
    "V": "V volt",
    "Hz": "Hz hertz",
    "A": "A amp ampere",
}
"""Units of measurement and their singular spellings; two different units contradict each other."""


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _with_plurals(text: str) -> frozenset[str]:
    return words(text) | {f"{word}s" for word in words(text)}


KNOWN = {
    form: unit
    for unit, spellings in SPELLINGS.items()
    for word in spellings.split()
    for form in ({word} if len(word) == 1 else _with_plurals(word))
}

COUNTED = _with_plurals("""
    adult animal answer apple arrangement article bag ball balloon banana bar bead bean bird block board boat book
    bottle bouquet bowl box boy brick bulb bus button cake calorie can candle car card carton cat chair chapter chicken
    child chip chocolate choice circle class code coin color combination computer container cookie corner cow crayon
    cupcake customer diagonal digit dime dish divisor dog doll donut dot doughnut dress duck edge egg element employee
    envelope episode event eye face factor family finger flag flavor flower fraction friend frog fruit function game
    gift girl glass goal group guest gumball handshake hat horse house integer intersection item jar jellybean key kid
    kind lap leg lemon letter line list loaf lollipop male marble match meal member message method move movie muffin
    multiple necklace newspaper nickel night notebook number object option orange order ordering outcome outfit pack
    package page painting pair palindrome pancake paper parent partition part party passenger patient path pattern pen
    pencil penny person pet phone photo picture piece pizza place plane plant plate player polygon possibility post
    prize problem puppy quadrilateral question rabbit rectangle region result ring rock roll room rope rose round route
    row sandwich school seat seed sequence serving set shape sheet shell shirt shoe side sibling sister slice sock
    solution song space stair stamp star state step sticker stick stone string student subset sweet system table
    tablespoon task teacher team teaspoon term test ticket tile time tomato toy train treat tree triangle trip truck
    turn turtle type unit value vegetable vehicle vertex vote vowel way wheel window winner word worker
""") | words("""
    babies boxes branches brothers bunches buses butterflies candies cherries children cities classes companies copies
    countries cubes daisies dishes families fish geese glasses indices kings ladies leaves loaves matches matrices men
    mice parties pennies people points possibilities potatoes primes puppies roots sandwiches scores sheep sketches
    squares strawberries switches tomatoes vertices women zeros
""")
"""Things that are counted in problems; they never contradict each other. A gold answer's own words count too."""

ASIDE = words("""
    a an the of in per old ago apart away long tall high wide deep
""")
"""Words that may follow a unit and do not change the value."""

TOGETHER = re.compile(
    r"\b(?:in (?:all|total)|all together|altogether|more|total|left(?: over)?|remaining|overall|each|apiece)\b"
)
"""Words that belong to an amount without a unit: 5 more, 5 in all."""

NO_UNIT = words("""
    or and not either neither nor but maybe perhaps if except than is are was approximately about around at most least
    no none plus minus times over to by squared cubed square cubic dozen score gross hundred thousand million billion
    trillion half halves third thirds quarter quarters fourth fourths fifth fifths sixth tenth tenths hundredth
    hundredths percent double twice triple zero one two three four five six seven eight nine ten pi inf infty infinity
    sin cos tan cot sec csc log ln exp sqrt root lim max min mod gcd lcm frac factorial
    negative dozens scores hundreds thousands millions billions
""")
"""Words that change a value, whatever the gold answer says."""
