"""How well the served ranking does next to its baselines: `make bench-ranking`, or `--data FOLDER` on real data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ml.encoder import load_encoder
from ml.evaluate import evaluate
from ml.recommender import Catalogue
from ml.text import lexical_terms, passage
from souk.evaluation import product_fields
from souk.settings import Settings
from souk.sources import Dataset, open_dataset

PEERS = ("popularity", "item-knn", "transition")
LIKES = ("view", "click", "cart", "purchase")


def read(dataset: Dataset, settings: Settings) -> tuple[Catalogue, list[list[int]]]:
    """Return the encoded catalogue of a source, and its sequences of liked items."""
    texts = {
        str(row["item_id"]): passage(*product_fields(row))
        for chunk in dataset.products()
        for row in chunk
        if row.get("item_id")
    }
    number = {item: position for position, item in enumerate(texts)}
    events = [
        (str(row["user_id"]), row["event_at"], number[str(row["item_id"])])
        for chunk in dataset.events()
        for row in chunk
        if row.get("kind") in LIKES and str(row.get("item_id")) in number
    ]
    sequences: dict[str, list[int]] = {}
    for user, _, item in sorted(events, key=lambda event: event[:2]):
        sequences.setdefault(user, []).append(item)
    print(f"encoding {len(texts):,} products of {dataset.shop}", flush=True)
    encoder = load_encoder(settings.encoder, settings.models)
    vectors = encoder.encode_passages(list(texts.values()), settings.encoder_max_tokens)
    return Catalogue(list(texts), [lexical_terms(text) for text in texts.values()], vectors), list(sequences.values())


def main() -> None:
    """Measure, print the table and write var/bench/ranking.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with items.jsonl and sequences.txt; the demo shop if absent")
    path = parser.parse_args().data
    settings = Settings.from_env()
    dataset = open_dataset("amazon" if path else "demo-shop", path, 0.5, 0, settings.home)
    catalogue, sequences = read(dataset, settings)
    arms = evaluate(catalogue, sequences, dataset.shop)["arms"]
    rows = [
        {
            "metric": metric,
            "ours": round(ours := arms["souk"]["test"][metric], 4),
            "peer": round(theirs := arms[peer]["test"][metric], 4),
            "peer_name": peer,
            "ratio": round(ours / theirs, 3) if theirs else None,
            "unit": "share of users" if metric.startswith("recall") else "gain",
            "target": 1.0,
            "met": ours > theirs,
        }
        for peer in PEERS
        for metric in ("recall@10", "ndcg@10")
    ]
    report = {"name": "ranking", "data": dataset.shop, "generated": dataset.is_generated, "rows": rows}
    target = settings.home / "bench" / "ranking.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"ranking on {dataset.shop}{' (generated data)' if dataset.is_generated else ''}, test, leave-one-out")
    print(f"{'metric':<10} {'ours':>7} {'peer':>7} {'ratio':>6}  peer")
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "-"
        print(f"{row['metric']:<10} {row['ours']:>7.4f} {row['peer']:>7.4f} {ratio:>6}  {row['peer_name']}")


if __name__ == "__main__":
    main()
