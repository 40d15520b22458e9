-- The role that serves may only read and write rows, and may not delete from the audit. Partitions are made and dropped by
-- these functions, which run with the rights of the role that migrates. Their search_path is fixed, so that nobody can put an
-- object of theirs in front.

-- Leaves every role but the owner no more than `select` and `insert` on the audit, and `update` of what the erasure of a
-- customer clears. Default privileges grant more to the role that serves on all that is created, and a migration doesn't know
-- that role's name. An `update` of `at` would move a row into a month that is dropped, so it is as good as a `delete`.
-- Partitions need no rights: rows are reached through their parent.
CREATE FUNCTION "assay"."protect_audit"() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $$
  DECLARE
    entry record;
  BEGIN
    FOR entry IN
      SELECT c.oid::regclass AS relation, c.relispartition AS is_partition, a.grantee::regrole AS other,
        bool_or(a.privilege_type = 'UPDATE') AS updates
      FROM pg_class c, aclexplode(c.relacl) a
      WHERE a.grantee NOT IN (0, c.relowner) AND (c.oid = 'assay.audit_events'::regclass OR c.oid IN
        (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'assay.audit_events'::regclass))
      GROUP BY c.oid, c.relispartition, a.grantee
    LOOP
      EXECUTE format('revoke delete, truncate, references, trigger on %s from %s', entry.relation, entry.other);
      IF entry.is_partition THEN
        EXECUTE format('revoke insert, update on %s from %s', entry.relation, entry.other);
      ELSIF entry.updates THEN
        -- This revokes what was granted for single columns as well.
        EXECUTE format('revoke update on %s from %s', entry.relation, entry.other);
        EXECUTE format('grant update (subject, ip, user_agent) on %s to %s', entry.relation, entry.other);
      END IF;
    END LOOP;
  END $$;
--> statement-breakpoint
CREATE FUNCTION "assay"."make_audit_partitions"() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
  DECLARE
    month timestamp;
    name text;
  BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('assay.audit_events')) THEN
      RETURN; -- Another replica is doing it.
    END IF;
    FOR ahead IN 0..3 LOOP
      month := date_trunc('month', assay.now() AT TIME ZONE 'UTC') + make_interval(months => ahead);
      name := 'audit_events_' || to_char(month, 'YYYY_MM');
      CONTINUE WHEN to_regclass('assay.' || name) IS NOT NULL;
      BEGIN
        EXECUTE format('create table assay.%I partition of assay.audit_events for values from (%L) to (%L)',
          name, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
        PERFORM assay.protect_audit();
      EXCEPTION WHEN check_violation OR lock_not_available OR invalid_object_definition THEN
        RAISE WARNING 'assay: % stays in the default partition', name;
      END;
    END LOOP;
  END $$;
--> statement-breakpoint
-- Whether what depends on the database's clock may be deleted: a replica compared the clock with a monotonic one in the last
-- five minutes, and no jump holds deletion. The bound on the age catches a jump between that comparison and this call.
CREATE FUNCTION "assay"."clock_is_trusted"() RETURNS boolean LANGUAGE sql VOLATILE
  SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM assay.database_clock
    WHERE held_until IS NULL AND assay.now() < observed_at + interval '5 minutes') $$;
--> statement-breakpoint
-- Detaches the oldest month that lies wholly before the retention period, and returns its name; null if there is none, or
-- while the clock is not trusted. Its table stays for a week, see drop_audit_partition, and its comment says since when. It
-- detaches one month at a time, because the parent's lock blocks every act. It never detaches the last two days, whatever it
-- is asked: AUDIT_RETENTION can't be shorter.
CREATE FUNCTION "assay"."detach_audit_partition"(retention_seconds double precision) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
  DECLARE
    name text;
    is_old boolean;
  BEGIN
    IF retention_seconds IS NULL OR retention_seconds < 172800 THEN
      RAISE EXCEPTION 'assay: the last two days of audit events can not be detached' USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('assay.audit_events'));
    SELECT c.relname INTO name
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'assay.audit_events'::regclass AND c.relname ~ '^audit_events_\d{4}_\d{2}$'
      AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month'
        < (assay.now() AT TIME ZONE 'UTC') - make_interval(secs => retention_seconds)
    ORDER BY c.relname LIMIT 1;
    IF name IS NULL OR NOT assay.clock_is_trusted() THEN
      RETURN NULL;
    END IF;
    -- Its name is not trusted: what it holds decides.
    EXECUTE format('select not exists (select from assay.%I where at >= assay.now() - make_interval(secs => $1))', name)
      INTO is_old USING retention_seconds;
    IF NOT is_old THEN
      RAISE WARNING 'assay: % has events that are younger than its month', name;
      RETURN NULL;
    END IF;
    PERFORM assay.protect_audit(); -- Its table keeps these rights once it is detached.
    EXECUTE format('alter table assay.audit_events detach partition assay.%I', name);
    EXECUTE format('comment on table assay.%I is %L', name, 'detached at ' || assay.now());
    RETURN name;
  END $$;
--> statement-breakpoint
-- Drops a month that was detached a week ago and still lies before the retention period, and returns its name; null if there
-- is none, or while the clock is not trusted. Only the owner can change the comment that says when it was detached.
CREATE FUNCTION "assay"."drop_audit_partition"(retention_seconds double precision) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
  DECLARE
    name text;
  BEGIN
    IF retention_seconds IS NULL OR retention_seconds < 172800 THEN
      RAISE EXCEPTION 'assay: the last two days of audit events can not be dropped' USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('assay.audit_events'));
    SELECT c.relname INTO name
    FROM pg_class c
    WHERE c.relnamespace = 'assay'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
      AND c.relname ~ '^audit_events_\d{4}_\d{2}$'
      AND to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month'
        < (assay.now() AT TIME ZONE 'UTC') - make_interval(secs => retention_seconds)
      AND substring(obj_description(c.oid, 'pg_class') FROM '^detached at (.*)$')::timestamptz
        < assay.now() - interval '7 days'
    ORDER BY c.relname LIMIT 1;
    IF name IS NULL OR NOT assay.clock_is_trusted() THEN
      RETURN NULL;
    END IF;
    EXECUTE format('drop table assay.%I', name);
    RETURN name;
  END $$;
--> statement-breakpoint
-- Deletes at most `batch` events older than the retention period from the default partition, and returns how many; none while
-- the clock is not trusted. The same two days are never deleted.
CREATE FUNCTION "assay"."delete_audit_events"(retention_seconds double precision, batch integer) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DECLARE
    deleted integer;
  BEGIN
    IF retention_seconds IS NULL OR retention_seconds < 172800 THEN
      RAISE EXCEPTION 'assay: the last two days of audit events can not be deleted' USING ERRCODE = '22023';
    END IF;
    IF NOT assay.clock_is_trusted() THEN
      RETURN 0;
    END IF;
    DELETE FROM assay.audit_events_default WHERE (at, id) IN (
      SELECT at, id FROM assay.audit_events_default
      WHERE at < (SELECT assay.now() - make_interval(secs => retention_seconds)) LIMIT batch FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
  END $$;
--> statement-breakpoint
INSERT INTO "assay"."database_clock" DEFAULT VALUES;
--> statement-breakpoint
SELECT "assay"."protect_audit"();
--> statement-breakpoint
REVOKE ALL ON FUNCTION "assay"."protect_audit"() FROM PUBLIC;
--> statement-breakpoint
REVOKE ALL ON FUNCTION "assay"."delete_audit_events"(double precision, integer) FROM PUBLIC;
--> statement-breakpoint
REVOKE ALL ON FUNCTION "assay"."make_audit_partitions"() FROM PUBLIC;
--> statement-breakpoint
REVOKE ALL ON FUNCTION "assay"."detach_audit_partition"(double precision) FROM PUBLIC;
--> statement-breakpoint
REVOKE ALL ON FUNCTION "assay"."drop_audit_partition"(double precision) FROM PUBLIC;
