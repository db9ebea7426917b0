"""How well the served ranking does next to its peers: `make bench-ranking`, or `--data FOLDER` on real data.

All run in one process on one split. The peers are tuned on validation over a small grid; test is measured once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

from bench.peers import MOST_ITEMS_OF_EASE, Tuned, als, bpr, ease
from bench.sasrec import sasrec
from ml.evaluate import ARMS, FIGURES, evaluate
from ml.evaluation.compare import paired
from souk.evaluation import read_shop
from souk.settings import Settings
from souk.sources import open_dataset

OURS = "souk"
UNITS = {"recall@10": "share of users", "ndcg@10": "gain"}


def peers(n_items: int) -> dict[str, Tuned]:
    """Return the peers that a catalogue of this size allows, with their grids."""
    found = {
        "als": Tuned(
            als,
            [
                {"factors": factors, "regularization": 0.1, "alpha": alpha}
                for factors in (128, 256)
                for alpha in (10.0, 40.0)
            ],
        ),
        "bpr": Tuned(
            bpr,
            [
                {"factors": 128, "learning_rate": rate, "regularization": decay, "iterations": 200}
                for rate in (0.01, 0.05)
                for decay in (0.001, 0.01)
            ],
        ),
        "sasrec": Tuned(
            sasrec,
            [{"dimension": size, "dropout": dropout} for size, dropout in ((64, 0.2), (128, 0.5), (256, 0.5))],
        ),
    }
    if importlib.util.find_spec("implicit") is None:
        print("implicit is not installed: run `make bench-ranking` for ALS and BPR")
        del found["als"], found["bpr"]
    if n_items <= MOST_ITEMS_OF_EASE:
        found["ease"] = Tuned(ease, [{"l2": l2} for l2 in (10.0, 50.0, 250.0)])
    return found


def main() -> None:
    """Measure, print the table and write var/bench/ranking.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with items.jsonl and sequences.txt; the demo shop if absent")
    parser.add_argument("--peers", nargs="*", help="only these, of als, bpr, sasrec and ease; none if empty")
    options = parser.parse_args()
    settings = Settings.from_env()
    dataset = open_dataset("amazon" if options.data else "demo-shop", options.data, 0.5, 0, settings.home)
    shop = read_shop(settings, dataset)
    tuned = {
        name: peer
        for name, peer in peers(len(shop.catalogue.item_ids)).items()
        if options.peers is None or name in options.peers
    }
    found = evaluate(shop.catalogue, shop.sequences, shop.name, categories=shop.categories, peers=tuned)
    arms = found.report["arms"]
    rows = []
    for peer in (name for name in (*ARMS, *tuned) if name != OURS):
        difference, low, high = paired(found.gains[f"loo/{OURS}"], found.gains[f"loo/{peer}"])
        for at, metric in enumerate(FIGURES):
            ours, theirs = arms[OURS]["test"][metric], arms[peer]["test"][metric]
            rows.append(
                {
                    "metric": metric,
                    "ours": round(ours, 4),
                    "peer": round(theirs, 4),
                    "peer_name": peer,
                    "ratio": round(ours / theirs, 3) if theirs else None,
                    "unit": UNITS[metric],
                    "target": 1.0,
                    "met": ours > theirs,
                    "difference": round(float(difference[at]), 4),
                    "difference_ci95": [round(float(low[at]), 4), round(float(high[at]), 4)],
                    "train_seconds": arms[OURS]["train_seconds"],
                    "peer_train_seconds": arms[peer]["train_seconds"],
                    "peer_settings": dict(tuned[peer].chosen) if peer in tuned else {},
                }
            )
    report = {"name": "ranking", "data": dataset.shop, "generated": dataset.is_generated, "rows": rows, "arms": arms}
    target = settings.home / "bench" / "ranking.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"ranking on {shop.name}, test, leave-one-out; {OURS} trains in {arms[OURS]['train_seconds']:.0f} s")
    print(f"{'metric':<10} {'ours':>7} {'peer':>7} {'ratio':>6} {'difference, 95 %':>26} {'train s':>8}  peer")
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "-"
        low, high = row["difference_ci95"]
        between = f"{row['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
        print(
            f"{row['metric']:<10} {row['ours']:>7.4f} {row['peer']:>7.4f} {ratio:>6} {between:>26}"
            f" {row['peer_train_seconds']:>8.0f}  {row['peer_name']}"
        )


if __name__ == "__main__":
    main()
