-- How much of an input is bad is counted with the input: what an earlier one had, too, is in quarantine but once.

alter table raw.landing add column reject_counts jsonb not null default '{}';
comment on column raw.landing.reject_counts is 'Rows of each entity that did not land, by reason.';
