-- Creates two roles for Assay, so that the servers can't change the schema:
--
--     assay_migrate   owns the schema assay and runs the migrations (npm run migrate; in the image: migrate)
--     assay_serve     reads and writes rows; DATABASE_URL of every server names it
--
-- Run it once in Assay's database, as a superuser or as the database's owner with CREATEROLE, and set the two passwords:
--
--     psql -v ON_ERROR_STOP=1 -f deploy/postgres/roles.sql DATABASE
--     psql -c '\password assay_migrate' -c '\password assay_serve' DATABASE
--
-- If the schema exists already, assay_migrate becomes its owner. Run it as a superuser, or as the
-- owner of the schema with CREATEROLE, while no server runs.

begin;

create role assay_migrate login;
create role assay_serve login;

-- Without superuser rights, only a member of a role may act for it.
grant assay_migrate to current_user;

create schema if not exists assay authorization assay_migrate;

-- Not `reassign owned`, which would also transfer the old owner's databases and its objects outside this schema.
do $$
declare
  own regclass;
begin
  execute 'alter schema assay owner to assay_migrate';
  for own in select oid::regclass from pg_class
    where relnamespace = 'assay'::regnamespace and relkind in ('r', 'p') order by relispartition
  loop
    execute format('alter table %s owner to assay_migrate', own);
  end loop;
  for own in select oid::regclass from pg_class as s
    where relnamespace = 'assay'::regnamespace and relkind = 'S'
      and not exists (select from pg_depend where objid = s.oid and deptype in ('a', 'i'))
  loop
    execute format('alter sequence %s owner to assay_migrate', own);
  end loop;
  execute coalesce((select string_agg(format('alter routine %s owner to assay_migrate', oid::regprocedure), ';')
    from pg_proc where pronamespace = 'assay'::regnamespace), '');
end $$;
grant usage on schema assay to assay_serve;

-- Existing objects, and those that later migrations add.
grant select, insert, update, delete on all tables in schema assay to assay_serve;
grant select, usage on all sequences in schema assay to assay_serve;
grant execute on all functions in schema assay to assay_serve;
alter default privileges for role assay_migrate in schema assay
  grant select, insert, update, delete on tables to assay_serve;
alter default privileges for role assay_migrate in schema assay
  grant select, usage on sequences to assay_serve;
alter default privileges for role assay_migrate in schema assay
  grant execute on functions to assay_serve;

-- Only the owner deletes from the audit. Migrations that run later do the same.
do $$ begin
  if to_regprocedure('assay.protect_audit()') is not null then
    perform assay.protect_audit();
  end if;
end $$;

revoke assay_migrate from current_user;

commit;
