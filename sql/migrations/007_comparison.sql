-- Champion and challenger: what a release is against the one that was shown when it was made.

create table ops.comparison (
    release_id text not null,
    champion_id text not null,
    is_passed boolean not null,
    verdict text not null,
    figures jsonb not null,
    decided_at timestamptz not null default now(),
    primary key (release_id, champion_id)
);
comment on table ops.comparison is 'The ledger of champions and challengers: one row per release and the release that it was to replace.';
comment on column ops.comparison.figures is 'For champion and challenger: NDCG@10, recall@10, coverage, share of places for the popular fifth, median milliseconds; the 95 % interval of the difference in NDCG.';

alter table serving.release add column trial jsonb;
comment on column serving.release.trial is 'How the model did on products that it had not seen shoppers take: shoppers, NDCG@10, recall@10, coverage, popularity; null where nobody had two products.';
