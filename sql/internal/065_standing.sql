-- Where a product stands, and what a shopper's interest says of categories.

create or replace function internal.standing(
    of_release text, history integer[], seen integer[], disliked integer[], number integer
)
returns table (rank integer, score double precision, contributions double precision[])
language sql stable rows 1
set search_path to pg_catalog, pg_temp
as $$
    select
        (
            select b.place::integer
            from internal.score(of_release, history, array_remove(seen, number), disliked, '{}', null, 1000, 0)
                with ordinality as b (item_no, score, popularity, contributions, place)
            where b.item_no = number
        ),
        s.score,
        s.contributions
    from internal.score(of_release, history, array_remove(seen, number), disliked, '{}', array[number], 1, 0) as s;
$$;
comment on function internal.standing(text, integer[], integer[], integer[], integer) is
'Rank by relevance (null beyond 1,000), score and contributions of one product, as if the shopper had not had it.';

create or replace function internal.titles(of_release text, items integer[]) returns jsonb
language sql stable
set search_path to pg_catalog, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object('item_id', i.item_id, 'title', i.title) order by n.place), '[]')
    from unnest(items) with ordinality as n (item_no, place)
    inner join serving.item as i on i.release_id = of_release and i.item_no = n.item_no;
$$;
comment on function internal.titles(text, integer[]) is 'Ids and titles of products, in the order given.';

create or replace function internal.categories(of_release text, of_input text, x halfvec, k integer)
returns table (rank integer, category text, probability double precision)
language sql stable rows 10
set search_path to pg_catalog, public, pg_temp
as $$
    with logits as (
        select c.category, c.bias - coalesce(c.vec <#> x::vector, 0) as logit
        from serving.category as c
        where c.release_id = of_release and c.input = of_input
    ),
    shares as (
        select l.category, exp(greatest(l.logit - max(l.logit) over (), -500)) as share from logits as l
    )
    select
        (row_number() over (order by s.share desc, s.category))::integer,
        s.category,
        s.share / sum(s.share) over ()
    from shares as s
    order by s.share desc, s.category
    limit k;
$$;
comment on function internal.categories(text, text, halfvec, integer) is
'The k likeliest categories by the release''s model: softmax(vec · x + bias) over all; the softmax of the biases where x is null.';
