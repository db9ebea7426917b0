create or replace function api.log_event(
    user_id text,
    item_id text,
    kind text,
    event_id text default uuidv7()::text,
    event_at timestamptz default clock_timestamp(),
    session_id text default null
)
returns text
language plpgsql volatile security definer
set search_path to pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    v_release text := internal.current_release();
    v_shop text;
begin
    select r.shop into v_shop from serving.release as r where r.release_id = v_release;
    if v_shop is null then
        raise exception 'no release is published' using errcode = 'object_not_in_prerequisite_state',
            hint = 'Run the recommendations DAG first.';
    end if;
    if user_id is null then
        raise exception 'an event needs a user' using errcode = 'not_null_violation';
    end if;
    if not exists (
        select from serving.item as i where i.release_id = v_release and i.item_id = log_event.item_id
    ) then
        raise exception 'there is no product %', item_id using errcode = 'foreign_key_violation';
    end if;
    if event_at > clock_timestamp() + interval '5 minutes' then
        raise exception 'the event lies in the future: %', event_at using errcode = 'datetime_field_overflow';
    end if;
    insert into live.event (event_id, shop, user_key, item_id, kind, event_at, session_id)
    values (
        log_event.event_id, v_shop, internal.user_key(log_event.user_id), log_event.item_id,
        log_event.kind, log_event.event_at, log_event.session_id
    )
    on conflict do nothing;
    return event_id;
end
$$;
comment on function api.log_event(text, text, text, text, timestamptz, text) is
'Record what a shopper did: view, click, cart, purchase, dislike or return. The next call of any function sees it. Logging an event_id again changes nothing.
Example: select api.log_event(''u1_…'', ''42'', ''click'');';
