-- The sequence model: two vectors for each product, and how loud each place of a history speaks.

alter table serving.item add column sequence_input halfvec(256), add column sequence_output halfvec(257);
alter table serving.item alter column sequence_input set storage plain, alter column sequence_output set storage plain;
comment on column serving.item.sequence_input is 'What taking the product says of a shopper; null where the release has no sequence model.';
comment on column serving.item.sequence_output is 'Whom the product suits: its inner product with internal.taste is the logit of its being taken next. The last dimension is its bias.';

create table serving.position_weight (
    release_id text not null,
    place integer not null check (place >= 0),
    vec vector(256) not null,
    primary key (release_id, place)
) partition by list (release_id);
comment on table serving.position_weight is 'How loud the product at each place of a history speaks, dimension by dimension; place 0 is the newest.';
