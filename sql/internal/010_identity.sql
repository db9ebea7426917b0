-- Who asks, and which release answers.

create or replace function internal.hmac_sha256(key bytea, message bytea) returns bytea
language plpgsql immutable strict parallel safe
set search_path to pg_catalog, pg_temp
as $$
declare
    block bytea := case when length(key) > 64 then sha256(key) else key end;
    inner_pad bytea := decode(repeat('36', 64), 'hex');
    outer_pad bytea := decode(repeat('5c', 64), 'hex');
begin
    for i in 0 .. length(block) - 1 loop
        inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(block, i));
        outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(block, i));
    end loop;
    return sha256(outer_pad || sha256(inner_pad || message));
end
$$;
comment on function internal.hmac_sha256(bytea, bytea) is 'HMAC-SHA-256 (RFC 2104) out of the core function sha256().';

create or replace function internal.stripped(body text) returns text
language sql immutable strict parallel safe
set search_path to pg_catalog, pg_temp
as $$
    select btrim(
        body,
        E'\u0009\u000A\u000B\u000C\u000D\u001C\u001D\u001E\u001F\u0020\u0085\u00A0\u1680\u2000'
        '\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000'
    );
$$;
comment on function internal.stripped(text) is 'A text without white space around it, as landing strips it: Python''s str.strip.';

create or replace function internal.user_key(user_id text) returns text
language plpgsql stable
set search_path to pg_catalog, pg_temp
as $$
declare
    key text := current_setting('souk.pseudonym_key', true);
    v_id text := internal.stripped(user_id);
begin
    if coalesce(v_id, '') = '' then
        return null;
    elsif v_id ~ '^u1_[0-9a-f]{32}$' then
        return v_id;
    end if;
    if coalesce(key, '') = '' then
        raise exception 'the session cannot turn user ids into pseudonyms'
            using errcode = 'invalid_parameter_value',
            hint = 'Pass a pseudonym (u1_…), or: set souk.pseudonym_key to the key that landing used.';
    elsif key !~ '^[0-9a-fA-F]{64}$' then
        raise exception 'souk.pseudonym_key is not a key of 64 hex digits'
            using errcode = 'invalid_parameter_value', hint = 'Set it to the key that landing used.';
    end if;
    return 'u1_' || left(encode(
        internal.hmac_sha256(decode(key, 'hex'), convert_to(v_id, 'UTF8')), 'hex'
    ), 32);
end
$$;
comment on function internal.user_key(text) is
'Pseudonym of a shopper: a pseudonym is returned as it is, a raw id is keyed with the session''s souk.pseudonym_key; null and the empty id are nobody.';

create or replace function internal.current_shop() returns text
language plpgsql stable security definer
set search_path to pg_catalog, pg_temp
as $$
declare
    v_shop text;
begin
    select t.shop into v_shop from ops.tenant_role as t where t.role_name = session_user;
    if v_shop is null and pg_has_role(session_user, 'souk_owner', 'member') then
        -- Who runs the server looks at the shop that was published last.
        select p.shop into v_shop from serving.pointer as p order by p.moved_at desc, p.shop limit 1;
    elsif v_shop is null then
        raise exception 'login % serves no shop', session_user using errcode = 'insufficient_privilege',
            hint = 'The operator maps it: insert into ops.tenant_role (role_name, shop) values (…).';
    end if;
    return v_shop;
end
$$;
comment on function internal.current_shop() is
'The shop that the login serves, by ops.tenant_role; for the operators of the server the shop that was published last.';

create or replace function internal.shown(out shop text, out release_id text)
language plpgsql stable
set search_path to pg_catalog, pg_temp
as $$
begin
    select p.shop, p.release_id into shop, release_id
    from serving.pointer as p where p.shop = internal.current_shop();
    if release_id is null then
        raise exception 'no release is published' using errcode = 'object_not_in_prerequisite_state',
            hint = 'Run the recommendations DAG first.';
    end if;
end
$$;
comment on function internal.shown() is 'The shop of the login and its published release.';

create or replace function internal.weight(of_release text, of_term text, otherwise double precision)
returns double precision
language sql stable
set search_path to pg_catalog, pg_temp
as $$
    select coalesce(
        (select w.val from serving.weight as w where w.release_id = of_release and w.term = of_term and w.min_history = 0),
        otherwise
    );
$$;
comment on function internal.weight(text, text, double precision) is
'A weight that does not depend on the history; the other value where the release has none.';
