"""Write glosses/ from the database of WordNet 3.0, and the text that its model is pre-trained on.

Run with the folder that has data.noun, data.verb, data.adj and data.adv, and the text's file:
python make_glosses.py /usr/share/wordnet glosses.txt
"""

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# The lexicographer's files of nouns, by their numbers in the database.
CLASSES = {
    4: "act",
    5: "animal",
    6: "artifact",
    7: "attribute",
    8: "body",
    10: "communication",
    13: "food",
    15: "location",
    18: "person",
    27: "substance",
}
TEST, TRAIN = 100, 300
SHORTEST, LONGEST = 20, 160
# Glosses that a demonstration can do without.
PASSED_OVER = re.compile(r"sex|prostitut|offensive|derogat|slur|disparag|vulgar|obscen")


def synsets(database: Path, part: str) -> Iterator[tuple[int, str, list[str]]]:
    """The lexicographer's file, the definition and the example sentences of each set of synonyms."""
    for line in (database / f"data.{part}").read_text("latin-1").splitlines():
        if line.startswith("  "):
            continue
        head, gloss = line.split(" | ", 1)
        definition = re.split(r';\s*"', gloss)[0].strip().rstrip(";")
        examples = re.findall(r'"([^"]*)"', gloss)
        yield (
            int(head.split()[1]),
            " ".join(definition.split()),
            [" ".join(e.split()) for e in examples],
        )


def in_order(texts: set[str]) -> list[str]:
    """An order that looks random and is always the same."""
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())


def usable(text: str) -> bool:
    return '"' not in text and not PASSED_OVER.search(text)


def main(database: Path, text: Path) -> None:
    folder = Path(__file__).with_name("glosses")
    nouns = list(synsets(database, "noun"))
    times = Counter(definition for _, definition, _ in nouns)
    test, train = {}, {}
    for number, name in CLASSES.items():
        unique = {
            definition
            for file, definition, _ in nouns
            if file == number and times[definition] == 1 and SHORTEST <= len(definition) <= LONGEST
        }
        chosen = in_order({definition for definition in unique if usable(definition)})
        test |= dict.fromkeys(chosen[:TEST], name)
        train |= dict.fromkeys(chosen[TEST : TEST + TRAIN], name)
    for file, labels in [("train.tsv", train), ("test.tsv", test)]:
        lines = [f"{labels[definition]}\t{definition}\n" for definition in in_order(set(labels))]
        (folder / file).write_text("".join(lines), "utf-8")
        print(f"{file}: {len(lines)} glosses of {len(CLASSES)} classes")

    others = {definition for _, definition, _ in nouns}
    for part in ["verb", "adj", "adv"]:
        for _, definition, examples in synsets(database, part):
            others.update([definition, *examples])
    others -= test.keys() | train.keys()
    kept = in_order({other for other in others if usable(other)} - {""})
    text.write_text("".join(f"{line}\n" for line in kept), "utf-8")
    print(f"{text}: {len(kept)} other glosses and examples")

    header = (database / "data.noun").read_text("latin-1").splitlines()
    notice = [line[2:].split(" ", 1)[1].rstrip() for line in header if line.startswith("  ")]
    (folder / "LICENSE").write_text("\n".join(notice) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
