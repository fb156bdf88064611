"""Make the frozen knowledge items: python scripts/bench/cloze_items.py CORPUS [--check].

CORPUS is the folder with `encyclopedia.parquet` (columns title, text), openings of articles of
Wikipedia as of 2015. Of these only the articles that the demonstration model was not trained on are
used. `--check` says how many items SmolLM2 and the demonstration model get right.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from analysis.measures.cloze import cloze_scores, cloze_summary, write_cloze
from analysis.measures.cloze_making import cloze_items

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "demo_model"))

from conversations import clean_article, held_out  # noqa: E402  (beside the demo model)

N, SEED = 60, 0
OUT = ROOT / "analysis" / "bench" / "data" / "cloze.json"
ABOUT = {
    "what": "Cloze items from openings of encyclopedia articles; see analysis/measures/cloze.py.",
    "source": "English Wikipedia as of 2015; `source` is the title of each item's article.",
    "authors": "The contributors to Wikipedia, listed in the history of each article.",
    "licence": "CC BY-SA 3.0, https://creativecommons.org/licenses/by-sa/3.0/",
    "changes": "Each text is cut before the target; distractors are words of other articles.",
    "maker": f"scripts/bench/cloze_items.py, {N} items, seed {SEED}",
}


def articles(corpus: Path) -> dict[str, str]:
    """The held-out articles, cleaned, by title."""
    table = pd.read_parquet(corpus / "encyclopedia.parquet")
    return {
        title: clean_article(text)
        for title, text in zip(table.title, table.text, strict=True)
        if held_out(title)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    items = cloze_items(articles(given.corpus), N, SEED)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_cloze(items, given.out, ABOUT)
    print(f"{len(items)} items in {given.out}")
    if given.check:
        import steerlens

        for name in ("smollm2", "demo"):
            print(name)
            print(cloze_summary(cloze_scores(steerlens.load(name), {}, items)).to_string())


if __name__ == "__main__":
    main()
