-- Publishing: the one place that moves the pointer.

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
    select * into v_new from serving.release as r where r.release_id = candidate;
    select r.* into v_old from serving.release as r inner join serving.pointer as p on p.release_id = r.release_id;
    if v_new is null or v_new.state not in ('audited', 'published', 'retired') then
        raise exception 'release % has not passed its audit', candidate using errcode = 'object_not_in_prerequisite_state';
    elsif v_old.release_id = v_new.release_id then
        v_outcome := 'unchanged';
    elsif v_old.shop = v_new.shop and v_old.interval_end > v_new.interval_end then
        v_outcome := 'refused';
        v_note := format('%s ends later, at %s', v_old.release_id, v_old.interval_end);
    else
        insert into serving.pointer (release_id) values (candidate)
        on conflict (is_only) do update set release_id = excluded.release_id, moved_at = now();
        update serving.release as r set state = 'published', published_at = now() where r.release_id = candidate;
        update serving.release as r set state = 'retired' where r.release_id = v_old.release_id;
        perform pg_notify('souk_release', candidate);
    end if;
    insert into serving.publication (release_id, outcome, note) values (candidate, v_outcome, v_note);
    return v_outcome;
end
$$;
comment on function internal.publish_release(text) is
'Show an audited release to all readers. Returns published, unchanged (it is shown already) or refused (a later interval of the shop is shown).';
