-- The refiner: texts that it made, on record with proof, and the texts that the shop gave, which are never lost.

alter table serving.item add column is_refined boolean not null default false;
comment on column serving.item.is_refined is 'Whether the description is the refiner''s; serving.original holds the one that the shop gave.';

create table serving.original (
    release_id text not null,
    item_no integer not null check (item_no >= 0),
    description text not null,
    primary key (release_id, item_no)
) partition by list (release_id);
comment on table serving.original is 'Descriptions as the shop gave them, of the products whose text in force is the refiner''s.';

alter type api.list_row add attribute is_refined boolean cascade;
comment on type api.list_row is
'A row of every list. description: the text in force. reasons: contributions that sum to score. interest_weight: softmax of the scores over the list, so a list of one product has weight 1. fewer_because: why there are fewer than k rows, else null. request_id: the key to log clicks with. is_refined: whether the refiner wrote the description.';

create table ops.refinement (
    shop text not null,
    item_id text not null,
    text_hash text not null,
    model_version text not null,
    old_text text not null,
    new_text text,
    spans jsonb not null default '[]',
    scores jsonb not null default '{}',
    reason text not null default '',
    state text not null check (state in ('proposed', 'published', 'rejected', 'reverted', 'kept_original')),
    effect jsonb not null default '{}',
    is_in_vector boolean not null default false,
    releases text[] not null default '{}',
    decided_by text not null default 'souk',
    decided_at timestamptz not null default now(),
    primary key (shop, item_id, text_hash, model_version),
    check (new_text is not null or state = 'kept_original'),
    check (state <> 'kept_original' or reason <> '')
);
comment on table ops.refinement is 'The ledger of the refiner: what became of each description that it was given. One row per product, original text and model.';
comment on column ops.refinement.text_hash is 'marts.dim_items.text_hash of the original.';
comment on column ops.refinement.old_text is 'The description that the shop gave.';
comment on column ops.refinement.new_text is 'The description that the refiner made; null where none passed its checks.';
comment on column ops.refinement.spans is 'Where each word of the new text comes from: start, end, source, at.';
comment on column ops.refinement.scores is 'What the new text was chosen by, and `quality`, the learned score of the old one.';
comment on column ops.refinement.reason is 'Why the text is not in force: a code; empty for one that is.';
comment on column ops.refinement.state is 'proposed: in a release that nobody has seen; published; rejected or reverted by a person or by what was measured; kept_original: no new text.';
comment on column ops.refinement.effect is 'On queries that nothing learned from: their number, the mean reciprocal rank of the product by words and by vector, with the old text and with the new one.';
comment on column ops.refinement.is_in_vector is 'Whether the vector that search and recommendations use was made of the new text.';
comment on column ops.refinement.releases is 'Releases that hold the new text, the oldest first.';
comment on column ops.refinement.decided_by is 'Who set the state: `souk`, or the login of a person.';

create table ops.refinement_rejection (
    shop text not null,
    item_id text not null,
    text_hash text not null,
    reason text not null check (reason <> ''),
    decided_by text not null default session_user,
    decided_at timestamptz not null default now(),
    primary key (shop, item_id, text_hash)
);
comment on table ops.refinement_rejection is 'Originals that stay as they are: no model replaces them again, unless the shop changes the text.';

create table ops.refinement_approval (
    shop text not null,
    content_hash text not null,
    share real not null check (share between 0 and 1),
    is_approved boolean not null,
    release_id text,
    decided_by text not null,
    decided_at timestamptz not null default now(),
    primary key (shop, content_hash)
);
comment on table ops.refinement_approval is 'What a person said to a set of new texts that changes a large share of the catalogue.';
comment on column ops.refinement_approval.content_hash is 'The set: manifest.json beside the generated texts.';
comment on column ops.refinement_approval.release_id is 'The release that was waiting for the answer; null where a command gave it, which makes the next run another release.';
