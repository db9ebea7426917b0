-- Vectors, and nobody but the owner creates objects in the schema that holds them.
create extension if not exists vector schema public;
revoke create on schema public from public;
