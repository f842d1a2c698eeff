"""A first study of own pictures: python newcomer.py FOLDER PAIRS (40 pairs or more: a verdict)."""

import random
import sys
from pathlib import Path

import pandas
from PIL import Image, ImageDraw

import headpatch as hp

PLACES = {"top-left-corner": (10, 10), "top-right-corner": (120, 10), "center": (65, 65)}
folder, count, dice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
folder.mkdir(parents=True, exist_ok=True)
rows = []  # one for each pair: two pictures that differ in one square, a question, where it is
for number in range(count):
    colour, place = dice.choice(["red", "blue", "yellow"]), dice.choice(list(PLACES))
    left, top = (side + dice.randrange(8) for side in PLACES[place])
    names = f"{number}_with.png", f"{number}_without.png"
    picture = Image.new("RGB", (168, 168), tuple(dice.randrange(100) for _ in range(3)))
    ImageDraw.Draw(picture).ellipse((116, 116, 152, 152), fill="green")
    picture.save(folder / names[1])
    ImageDraw.Draw(picture).rectangle((left, top, left + 34, top + 34), fill=colour)
    picture.save(folder / names[0])
    rows.append((*names, f"Is there anything in the {place.replace('-', ' ')}?", place, colour))
columns = ["with", "without", "question", "region", "colour"]  # the last is a factor
pandas.DataFrame(rows, columns=columns).to_csv(folder / "pairs.csv", index=False)

pairs = hp.open_pairs(hp.Study(), folder / "pairs.csv")  # of another model: hp.Study(model=...)
print(pairs.summary)
hp.rank(pairs).save(folder / "results")
found = hp.ablate(pairs, "top:3", kinds=["resample"], directions=["noising"])  # those that look
print(found.means[["heads", "normalized", "normalized_low", "normalized_high"]])
hp.plot(found).savefig(folder / "effects.pdf")
if count >= 40:
    judged = hp.verdict(pairs)
    print(judged.heads["verdict"].value_counts())
    judged.save(folder / "results")
print(hp.report(folder / "results"))
