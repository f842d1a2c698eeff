"""A first study from Python: own pictures, own questions, own table of pairs.

python newcomer.py FOLDER PAIRS     # a verdict takes 40 pairs or more; with fewer it is left out
"""

import random
import sys
from pathlib import Path

import pandas
from PIL import Image, ImageDraw

import headpatch as hp

COLOURS = {"red": (220, 30, 30), "blue": (40, 80, 230), "yellow": (240, 210, 40)}
PLACES = {"top-left-corner": (10, 10), "top-right-corner": (120, 10), "center": (65, 65)}
folder, count = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
dice = random.Random(0)

rows = []  # one for each pair: two pictures that differ in one square, a question, where it is
for number in range(count):
    colour, place = dice.choice(list(COLOURS)), dice.choice(list(PLACES))
    left, top = (side + dice.randrange(8) for side in PLACES[place])
    back, lower = tuple(dice.randrange(100) for _ in range(3)), 116 + dice.randrange(10)
    picture = Image.new("RGB", (168, 168), back)  # alike pictures would count as one scene
    ImageDraw.Draw(picture).ellipse((lower, lower, lower + 36, lower + 36), fill="green")
    picture.save(folder / f"{number}_without.png")
    ImageDraw.Draw(picture).rectangle((left, top, left + 34, top + 34), fill=COLOURS[colour])
    picture.save(folder / f"{number}_with.png")
    question = f"Is there anything in the {place.replace('-', ' ')}?"
    names = f"{number}_with.png", f"{number}_without.png"
    rows.append((*names, question, place, colour))
columns = ["with", "without", "question", "region", "colour"]  # the last is a factor
pandas.DataFrame(rows, columns=columns).to_csv(folder / "pairs.csv", index=False)

# One pair.
shown, hidden, question, place, _ = rows[0]
pair = hp.make_pair(folder / shown, folder / hidden, question, place)
session = hp.open_session(hp.Study(), pair=pair)  # of another model: hp.Study(model=...)
swept = hp.sweep(session, kinds=["resample"], directions=["noising"])
strong = swept.named.nlargest(3, "normalized")["heads"]
print("act most on one pair:", *strong)

# All pairs, with the model that is loaded already.
pairs = hp.open_pairs(hp.Study(), folder / "pairs.csv", vlm=session.vlm)
print(pairs.summary)
hp.rank(pairs).save(folder / "results")
for heads in ("top:3", ",".join(strong)):  # those that look, and those that act on one pair
    found = hp.ablate(pairs, heads, kinds=["resample"], directions=["noising"])
    print(found.means[["heads", "normalized", "normalized_low", "normalized_high"]])
hp.plot(found).savefig(folder / "effects.pdf")
if count >= 40:
    judged = hp.verdict(pairs)
    print(judged.heads["verdict"].value_counts())
    judged.save(folder / "results")
print(hp.report(folder / "results"))
