"""Diseases of tables: each is named by the gate that looks at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import sampled
from tests.sql.gates.sound import execute, red

DISEASES = [
    ("landed", "update raw.product set title = ' ' where item_id < 'i12'", "4 of 20 products have no title"),
    ("landed", "update raw.product set price = -1 where item_id = 'i1'", "1 of 20 products have a negative price"),
    ("landed", "delete from raw.event where item_id = 'i1'", "there are 57 events, but the manifest promises 60"),
    ("landed", "update raw.event set event_at = '2999-01-01' where item_id = 'i1'", "3 of 60 events lie in the future"),
    (
        "landed",
        "update raw.event set user_key = 'wang@example.com' where item_id = 'i1'",
        "3 of 60 events carry a user id that is no pseudonym",
    ),
    ("profiles", "truncate marts.fct_interactions", "there are 0 interactions, but the manifest promises 60"),
    ("profiles", "update marts.dim_items set item_id = 'i1' where item_id = 'i2'", "2 of 20 items share their id"),
    (
        "profiles",
        "update marts.fct_interactions set item_id = 'x' where item_id = 'i1'",
        "3 of 60 interactions are with",
    ),
    (
        "profiles",
        "update marts.dim_user_profiles set sentiment = 7",
        "3 of 3 profiles have a sentiment outside -1 to 1",
    ),
    (
        "candidate",
        "update serving.release set metrics = metrics - 'sequence_recall'",
        "1 of 1 releases have an index of the sequence model that was not compared with an exact search",
    ),
    (
        "candidate",
        "update serving.release set metrics = metrics || '{\"index_recall\": 0.89}'",
        "1 of 1 releases have an index that finds fewer than 9 of 10 of the nearest items",
    ),
    (
        "candidate",
        "update serving.release set metrics = metrics - 'index_recall'",
        "1 of 1 releases have an index of texts that was not compared with an exact search",
    ),
    (
        "candidate",
        "update serving.release set metrics = metrics || '{\"sequence_recall\": 0.89}'",
        "1 of 1 releases have an index that finds fewer than 9 of 10 of the likeliest items",
    ),
    (
        "candidate",
        "update serving.item set text_vector = text_vector * text_vector - text_vector where item_no < 4",
        "4 of 20 items have a vector that is not of unit length",
    ),
    (
        "candidate",
        "update serving.item set sequence_output = null where item_no < 2",
        "2 of 20 items have no vectors of the sequence model",
    ),
    (
        "candidate",
        "update serving.position_weight set vec = array_fill(1e5::real, array[256])::vector",
        "1 of 1 position weights are infinite",
    ),
    (
        "candidate",
        "update serving.item set lexical = '{}/1000000000' where item_no = 3",
        "1 of 20 items have no words to be found by",
    ),
    ("candidate", "update serving.item set item_no = 20 where item_no = 3", "1 of 20 items have a number beyond"),
    (
        "candidate",
        "update serving.popularity set first_nos[1] = 1",
        "1 of 1 lists of popularity disagree with the items",
    ),
    ("candidate", "update serving.popularity set vals[1] = 0.4", "1 of 1 lists of popularity disagree with the items"),
    ("candidate", "update serving.item set popularity = 0 where item_no = 3", "1 of 1 lists of popularity disagree"),
    (
        "candidate",
        "update serving.edge set val[2] = 'NaN' where src = 1",
        "1 of 19 neighbour lists have a value that is not finite",
    ),
    (
        "candidate",
        "update serving.edge set val[2] = 0 where src = 1",
        "1 of 19 neighbour lists have a value that is not positive",
    ),
    ("candidate", "update serving.edge set src = 20 where src = 1", "1 of 19 neighbour lists are of an unknown item"),
    ("candidate", "update serving.edge set dst[2] = 20 where src = 1", "1 of 19 neighbour lists name an unknown item"),
    ("candidate", "update serving.edge set dst[2] = -1 where src = 1", "1 of 19 neighbour lists name an unknown item"),
    ("candidate", "update serving.edge set dst[2] = 2 where src = 1", "1 of 19 neighbour lists name an item twice"),
    ("candidate", "update serving.edge set dst[2] = 1 where src = 1", "1 of 19 neighbour lists lead back to where"),
    ("candidate", "update serving.edge set dst = '{}', val = '{}' where src = 1", "1 of 19 neighbour lists are empty"),
    ("candidate", "update serving.weight set term = 'luck' where term = 'tfidf'", "the weights leave out a term"),
    ("candidate", "update serving.term set item_nos[1] = 20 where term = 'tea'", "1 of 2 terms name an unknown item"),
    ("candidate", "update serving.term set item_nos[1] = 1 where term = 'tea'", "1 of 2 terms name an item twice"),
    (
        "candidate",
        "update serving.term set weights[1] = 'inf' where term = 'tea'",
        "1 of 2 terms have a value that is not finite",
    ),
    ("candidate", "update serving.term set term_no = 1", "2 of 2 terms share their number"),
    ("candidate", "update serving.term set idf = 'NaN' where term = 'tea'", "1 of 2 terms have an infinite weight"),
    ("candidate", "update serving.spelling set terms = '{tea,coffee}'", "1 of 1 spellings lead to an unknown term"),
    ("candidate", "update serving.category set bias = 'NaN'", "1 of 1 categories have a bias that is not finite"),
    ("candidate", "update serving.item_day set item_no = 20", "1 of 1 days of items are of an unknown item"),
    ("candidate", "update serving.user_profile set seen = '{1,20}'", "3 of 3 profiles name an unknown item"),
    ("candidate", "update serving.user_profile set history = '{-1}'", "3 of 3 profiles name an unknown item"),
    ("candidate", "update serving.user_profile set disliked = '{99}'", "3 of 3 profiles name an unknown item"),
    (
        "candidate",
        "update serving.user_profile set history = array_fill(1, array[21])",
        "3 of 3 profiles have more than 20 items of history",
    ),
    ("candidate", "update serving.user_profile set shop = 'other'", "3 of 3 profiles belong to another shop"),
    ("refined", "update ops.refinement set state = 'reverted'", "1 of 1 rows of the ledger are of a text that was"),
    (
        "refined",
        "insert into ops.refinement_rejection (shop, item_id, text_hash, reason) select shop, 'i3', 'h', 'ugly'"
        " from raw.landing",
        "1 of 1 rows of the ledger are of a text that was",
    ),
    (
        "refined",
        "update marts.dim_items set description = 'Lost'",
        "1 of 1 rows of the ledger do not hold the original",
    ),
    (
        "refined",
        "insert into ops.refinement select shop, i, 'h', 'v', 'Tea.', 'x', '[]', '{}', '', 'proposed', '{}', false,"
        " releases from ops.refinement, unnest(array['i4', 'i5', 'i6']) as i",
        "there are 4 rows of the ledger, but the manifest promises 1",
    ),
    ("candidate", "update serving.item set is_refined = false", "1 of 20 items have a text that is not that of"),
    (
        "candidate",
        "update serving.item set description = 'x' where item_no = 3",
        "1 of 20 items have a text that is not",
    ),
    ("candidate", "update ops.refinement set state = 'rejected'", "1 of 20 items have a text that is not that of"),
    ("candidate", "delete from serving.original", "1 of 20 items have a text that is not that of the ledger"),
    ("candidate", "delete from serving.user_profile", "there are 0 profiles, but the manifest promises 3"),
]


@pytest.mark.parametrize(("gate", "disease", "fault"), sampled(DISEASES, 8))
def test_a_disease_in_a_table_is_named(sound: str, lake: Path, gate: str, disease: str, fault: str) -> None:
    execute(sound, disease)
    assert red(sound, lake, gate).startswith(f"Blocked: {fault}")


def test_more_than_may_be_refined_is_named(sound: str, lake: Path) -> None:
    execute(
        sound,
        "insert into ops.refinement select shop, i, 'h', 'v', 'Tea.', 'x', '[]', '{}', '', 'proposed', '{}', false,"
        " releases from ops.refinement, unnest(array['i4', 'i5', 'i6']) as i",
    )
    verdict = red(sound, lake, "refined", ledger=4)
    assert verdict == "Blocked: 20 of 20 items belong to a catalogue of which more is refined than may be"
