"""What evaluations share: vectors that are kept, and a release that is published in a database of its own."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ml.encoder import Encoder
from souk import release
from souk.postgres import connect, connect_server, create_database
from souk.settings import Settings
from sql.migrate import migrate

log = logging.getLogger(__name__)


def encode_texts(settings: Settings, encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the encoder's vectors of products, (n, d), kept for the next evaluation of the same texts."""
    name = hashlib.sha256(
        json.dumps([encoder.model_id, settings.encoder_max_tokens, list(texts)]).encode()
    ).hexdigest()[:20]
    cache = settings.lake / "evaluation" / f"{name}.npy"
    if cache.exists():
        return np.asarray(np.load(cache), np.float32)
    log.info("encoding %s texts", f"{len(texts):,}")
    vectors = encoder.encode_passages(list(texts), settings.encoder_max_tokens)
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, vectors)
    return vectors


def publish_trial(settings: Settings, database: str, shop: str, folder: Path, events: int = 0) -> str:
    """Publish a release's files in a database made anew, and return its DSN.

    Args:
        settings: The server.
        database: Its name; one of that name is dropped.
        shop: Whose release it is.
        folder: Files as `souk.artefacts` writes them.
        events: Events that the release was trained on.
    """
    server = connect_server(settings)
    with closing(connect(server, autocommit=True)) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database)))
    create_database(server, database)
    dsn = make_conninfo(server, dbname=database)
    migrate(dsn)
    entry = release.Release("evaluation", shop, "evaluation", None, settings.encoder, False, False)
    release.load(dsn, entry, folder, events)
    release.mark_audited(dsn, entry.release_id)
    release.publish(dsn, entry.release_id)
    return dsn
