-- Publishing: the one place that moves a pointer.

create or replace function internal.publish_release(candidate text) returns text
language plpgsql volatile
set search_path to pg_catalog, pg_temp
set lock_timeout to '3s'
as $$
declare
    v_new serving.release;
    v_old serving.release;
    v_outcome text := 'published';
    v_note text := '';
begin
    perform pg_advisory_xact_lock(hashtext('souk.publish'));
    select r.* into v_new from serving.release as r where r.release_id = candidate;
    select r.* into v_old
    from serving.release as r
    inner join serving.pointer as p on p.release_id = r.release_id
    where p.shop = v_new.shop;
    if v_new is null or v_new.state not in ('audited', 'published', 'retired') then
        raise exception 'release % has not passed its audit', candidate using errcode = 'object_not_in_prerequisite_state';
    elsif v_old.release_id = v_new.release_id then
        v_outcome := 'unchanged';
    elsif v_old.interval_end > v_new.interval_end then
        v_outcome := 'refused';
        v_note := format('%s ends later, at %s', v_old.release_id, v_old.interval_end);
    else
        -- Products that applications add meanwhile wait, and are added to this release.
        perform 1 from serving.pointer as p where p.shop = v_new.shop for update;
        perform internal.carry_over(v_new.shop, candidate, v_new.landing_no, v_old.landing_no);
        insert into serving.pointer (shop, release_id) values (v_new.shop, candidate)
        on conflict (shop) do update set release_id = excluded.release_id, moved_at = now();
        update serving.release as r set state = 'published', published_at = now() where r.release_id = candidate;
        update serving.release as r set state = 'retired' where r.release_id = v_old.release_id;
        perform pg_notify('souk_release', candidate);
    end if;
    insert into serving.publication (release_id, outcome, note) values (candidate, v_outcome, v_note);
    return v_outcome;
end
$$;
comment on function internal.publish_release(text) is
'Show an audited release to all readers of its shop. Returns published, unchanged (it is shown already) or refused (a later interval is shown).';

create or replace function internal.carry_over(of_shop text, into_release text, landed bigint, landed_before bigint)
returns void
language plpgsql volatile
set search_path to pg_catalog, pg_temp
as $$
begin
    -- A rollback to the release before needs what came after that one.
    delete from live.event as e
    where e.shop = of_shop and e.landing_no <= least(coalesce(landed, 0), coalesce(landed_before, 0));
    delete from live.item as l
    where l.shop = of_shop and l.is_available
        and l.landing_no <= least(coalesce(landed, 0), coalesce(landed_before, 0));
    perform internal.put_item(of_shop, into_release, l.item_id)
    from live.item as l
    where l.shop = of_shop and coalesce(l.landing_no > landed, true);
    -- What a file says of a hidden product may be newer than what hid it.
    update serving.item as i
    set is_available = false
    from live.item as l
    where i.release_id = into_release and l.shop = of_shop and l.item_id = i.item_id
        and l.landing_no <= landed and not l.is_available;
end
$$;
comment on function internal.carry_over(text, text, bigint, bigint) is
'Forget what was logged before the release that will be kept for a rollback, and write the products that came after the new release''s landing, or are not available, into it.';
