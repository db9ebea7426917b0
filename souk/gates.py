"""The gates between the stages: Great Expectations suites that fail closed.

A suite looks at the tables or Parquet files that a stage has written, and first of all at how many rows they hold: as
many as the stage's manifest promises, and at least one. A gate that raised, or evaluated less than it has rules, is red
like one that found a fault. Its verdict is one sentence without values from the data, kept in `ops.gate_result`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql

from souk.errors import SoukError
from souk.gate_rules import Part, Rule
from souk.postgres import connect, connect_server, sqlalchemy_url
from souk.settings import Settings
from souk.suites import SUITES

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult

logger = logging.getLogger(__name__)

# BOOLEAN_ONLY would not say how many rows are wrong; this says so and still carries no sample.
COUNTS_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0}
ROW_COUNT = "expect_table_row_count_to_equal"


class GateFailed(SoukError):
    """A gate is red: what it guards goes no further, and what is published stays."""


@dataclass(frozen=True)
class Verdict:
    """What a gate decided.

    Attributes:
        gate: Name of the suite.
        is_passed: Whether the run may go on.
        evaluated: Expectations that were evaluated.
        sentence: The decision in words, free of values from the data.
    """

    gate: str
    is_passed: bool
    evaluated: int
    sentence: str


@dataclass
class _Findings:
    evaluated: int = 0
    counts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def check(dsn: str, lake: Path, gate: str, stage: Mapping[str, Any]) -> Verdict:
    """Evaluate a gate and record its verdict.

    Args:
        dsn: The database.
        lake: Root of the Parquet files.
        gate: `landed`, `profiles`, `encoded`, `refined`, `trained` or `candidate`.
        stage: What the stage before it returned: `shop`, `run_id`, `rows` (the manifest: table to number of rows)
            and, for `candidate`, `release_id`.

    Returns:
        The verdict of a gate that passed.

    Raises:
        GateFailed: The gate is red.
    """
    findings = _Findings()
    try:
        parts = SUITES[gate](lake / str(stage["shop"]), stage)
        _evaluate(dsn, parts, stage["rows"], findings)
    except Exception as error:  # Whatever went wrong, what was not checked does not pass.
        logger.exception("gate %s", gate)
        findings.faults.insert(0, f"the gate {gate} did not evaluate ({type(error).__name__})")
    verdict = _verdict(gate, findings)
    served = _record(dsn, stage, verdict)
    logger.info("%s", verdict.sentence)
    if not verdict.is_passed:
        raise GateFailed(verdict.sentence, f"{served} Correct the data and run again.")
    return verdict


def guard(gate: str, stage: Mapping[str, Any]) -> dict[str, Any]:
    """Check a gate with the settings of the environment.

    Returns:
        What the stage returned, with the verdict.

    Raises:
        GateFailed: The gate is red.
    """
    settings = Settings.from_env()
    verdict = check(connect_server(settings), settings.lake, gate, stage)
    return {**stage, "verdict": verdict.sentence}


def _evaluate(dsn: str, parts: tuple[Part, ...], manifest: Mapping[str, int], findings: _Findings) -> None:
    # Read when the library is imported.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    import great_expectations.expectations as gxe

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    tables = context.data_sources.add_postgres("tables", connection_string=sqlalchemy_url(dsn), create_temp_table=False)
    files = context.data_sources.add_pandas("files")
    try:
        for part in parts:
            expected = manifest[part.name]
            if expected == 0 and not part.may_be_empty:
                findings.faults.append(f"there are no {part.noun}")
                continue
            rules = [Rule("ExpectTableRowCountToEqual", "", {"value": expected}), *(part.rules if expected else ())]
            suite = gx.ExpectationSuite(name=part.name)
            for rule in rules:
                expectation = getattr(gxe, rule.expectation)
                suite.add_expectation(expectation(**rule.arguments, meta={"fault": rule.fault}))
            if isinstance(part.rows, sql.Composable):
                # SQLAlchemy reads a colon as the start of a parameter.
                query = part.rows.as_string().replace(":", r"\:")
                batch = tables.add_query_asset(part.name, query).add_batch_definition_whole_table("all").get_batch()
            else:
                definition = files.add_dataframe_asset(part.name).add_batch_definition_whole_dataframe("all")
                batch = definition.get_batch({"dataframe": part.rows()})
            _judge(part, expected, len(rules), batch.validate(suite, result_format=COUNTS_ONLY), findings)
    finally:
        tables.get_engine().dispose()


def _judge(
    part: Part, expected: int, rules: int, outcome: ExpectationSuiteValidationResult, findings: _Findings
) -> None:
    """Add what a suite found in one table; a rule without a result is a fault."""
    findings.evaluated += len(outcome.results)
    findings.counts.append(f"{expected:,} {part.noun}")
    # Without the key, the value is a collection of exceptions.
    raised = any(result.exception_info.get("raised_exception") is not False for result in outcome.results)
    if raised or len(outcome.results) < rules:
        findings.faults.append(f"the rules for {part.noun} did not evaluate")
        return
    broken = {result.expectation_config.type: result for result in outcome.results if not result.success}
    if ROW_COUNT in broken:
        # It explains whatever else is wrong.
        found = broken[ROW_COUNT].result["observed_value"]
        findings.faults.append(f"there are {found:,} {part.noun}, but the manifest promises {expected:,}")
        return
    for result in outcome.results:
        if result.success:
            continue
        fault = result.expectation_config.meta["fault"]
        if "unexpected_count" in result.result:
            count, total = result.result["unexpected_count"], result.result["element_count"]
            findings.faults.append(f"{count:,} of {total:,} {part.noun} {fault}")
        else:
            findings.faults.append(f"the {part.noun} {fault}")
    if not outcome.success and not broken:
        findings.faults.append(f"the suite for {part.noun} failed without a reason")


def _verdict(gate: str, findings: _Findings) -> Verdict:
    if findings.faults:
        others = len(findings.faults) - 1
        more = f", and {others} more fault{'s' if others > 1 else ''}" if others else ""
        return Verdict(gate, False, findings.evaluated, f"Blocked: {findings.faults[0]}{more}")
    if not findings.evaluated:
        return Verdict(gate, False, 0, f"Blocked: the gate {gate} did not evaluate anything")
    sentence = f"Passed: {findings.evaluated} rules hold for {', '.join(findings.counts)}"
    return Verdict(gate, True, findings.evaluated, sentence)


def _record(dsn: str, stage: Mapping[str, Any], verdict: Verdict) -> str:
    """Keep the verdict, and say which release readers see."""
    with closing(connect(dsn)) as connection, connection.transaction():
        connection.execute(
            "insert into ops.gate_result (shop, run_id, gate, is_passed, evaluated, verdict)"
            " values (%s, %s, %s, %s, %s, %s)"
            " on conflict (shop, run_id, gate) do update set is_passed = excluded.is_passed,"
            " evaluated = excluded.evaluated, verdict = excluded.verdict, decided_at = now()",
            [stage["shop"], stage["run_id"], verdict.gate, verdict.is_passed, verdict.evaluated, verdict.sentence],
        )
        served = connection.execute(
            "select release_id from serving.pointer where shop = %s", [stage["shop"]]
        ).fetchone()
    return f"Release {served[0]} keeps serving." if served else "Nothing is published yet."
