-- What was measured of both vector indexes of a release while it was loaded.

comment on column serving.release.metrics is
'index_effort: hnsw.ef_search with which the index of the texts'' vectors finds 99 of 100 of the ten nearest products, or the most that there is; index_recall: the share that it finds with it. sequence_effort and sequence_recall: likewise of the sequence model''s index, for the ten likeliest products of a shopper with one.';
