-- The serving role may only read and write rows, and may not delete from the audit. Partitions are made and dropped by these
-- functions, which run with the rights of the migrating role. Their search_path is fixed, so that no other role can make them use
-- its own objects.

-- Revokes the rights of every role but the owner, except `select` and `insert` on the audit, `update` of the columns that the
-- erasure of a customer clears, and `select` on the audit's order. An inserted event can't choose its id, because another event
-- may be about to get that id, and the sequencer would confuse the two. Default privileges grant the serving role more rights on
-- everything that is created, and a migration doesn't know that role's name. An `update` of `at` could move a row into a month
-- that is dropped, which would be like a `delete`. Partitions need no rights, because rows are reached through their parent.
CREATE FUNCTION "assay"."protect_audit"() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $$
  DECLARE
    entry record;
  BEGIN
    FOR entry IN
      SELECT c.oid::regclass AS relation, c.oid <> 'assay.audit_events'::regclass AS is_closed, a.grantee::regrole AS other,
        bool_or(a.privilege_type = 'INSERT') AS inserts, bool_or(a.privilege_type = 'UPDATE') AS updates
      FROM pg_class c, aclexplode(c.relacl) a
      WHERE a.grantee NOT IN (0, c.relowner) AND (c.oid IN ('assay.audit_events'::regclass,
        'assay.audit_batches'::regclass, 'assay.audit_sequencer'::regclass) OR c.oid IN
        (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'assay.audit_events'::regclass))
      GROUP BY c.oid, a.grantee
    LOOP
      EXECUTE format('revoke delete, truncate, references, trigger on %s from %s', entry.relation, entry.other);
      IF entry.is_closed THEN
        EXECUTE format('revoke insert, update on %s from %s', entry.relation, entry.other);
        CONTINUE;
      END IF;
      -- Revoking a right on the table also revokes it on single columns.
      IF entry.inserts THEN
        EXECUTE format('revoke insert on %s from %s', entry.relation, entry.other);
        EXECUTE format('grant insert (at, customer_id, type, actor, subject, session_id, token_id, ip, user_agent, detail)'
          ' on %s to %s', entry.relation, entry.other);
      END IF;
      IF entry.updates THEN
        EXECUTE format('revoke update on %s from %s', entry.relation, entry.other);
        EXECUTE format('grant update (subject, ip, user_agent) on %s to %s', entry.relation, entry.other);
      END IF;
    END LOOP;
    -- A role that can set the sequence back could give an event an id that the sequencer no longer looks for.
    FOR entry IN
      SELECT DISTINCT a.grantee::regrole AS other FROM pg_class c, aclexplode(c.relacl) a
      WHERE c.oid = 'assay.audit_event_ids'::regclass AND a.grantee NOT IN (0, c.relowner) AND a.privilege_type = 'UPDATE'
    LOOP
      EXECUTE format('revoke update on sequence assay.audit_event_ids from %s', entry.other);
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
-- Whether rows that depend on the database's clock may be deleted: a replica compared the clock with a monotonic one in the last
-- five minutes, and no jump holds deletion. The limit of five minutes catches a jump between that comparison and this call.
CREATE FUNCTION "assay"."clock_is_trusted"() RETURNS boolean LANGUAGE sql VOLATILE
  SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM assay.database_clock
    WHERE held_until IS NULL AND assay.now() < observed_at + interval '5 minutes') $$;
--> statement-breakpoint
-- Detaches the oldest month that lies wholly before the retention period, and returns its name; null if there is none, or while
-- the clock is not trusted. Its table stays for a week (see drop_audit_partition), and the table's comment has the time of the
-- detachment. The function detaches one month at a time, because the parent's lock blocks every act. It never detaches the last
-- two days, whatever its argument is, because AUDIT_RETENTION can't be shorter.
CREATE FUNCTION "assay"."detach_audit_partition"(retention_seconds double precision) RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
  DECLARE
    name text;
    is_old boolean;
  BEGIN
    IF retention_seconds IS NULL OR retention_seconds < 172800 THEN
      RAISE EXCEPTION 'assay: the last two days of audit events can''t be detached' USING ERRCODE = '22023';
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
    -- The table's name is not trusted; its content decides.
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
      RAISE EXCEPTION 'assay: the last two days of audit events can''t be dropped' USING ERRCODE = '22023';
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
-- Deletes at most `batch` events older than the retention period from the default partition, and returns how many; none while the
-- clock is not trusted. The last two days are never deleted.
CREATE FUNCTION "assay"."delete_audit_events"(retention_seconds double precision, batch integer) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DECLARE
    deleted integer;
  BEGIN
    IF retention_seconds IS NULL OR retention_seconds < 172800 THEN
      RAISE EXCEPTION 'assay: the last two days of audit events can''t be deleted' USING ERRCODE = '22023';
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
-- Assigns positions to the events that were committed since the last run, at most 2,000 of them. Returns their number, whether
-- more wait, and whether every event that was committed before this call has a position now.
--
-- An event's id is drawn before its commit, so ids become visible out of order. The sequencer takes the ids above the highest
-- that it has found, and looks again for the lower ones that it missed. The transaction that drew a missing id had its number
-- when the sequencer missed the id, and that number is lower than the one that the next run gets (`barrier`). Once every
-- transaction up to the barrier has ended and the id still does not exist, its transaction has failed: no event will ever have
-- that id. A transaction that stays open delays only its own events.
--
-- If two runs are concurrent, one of them finds the row locked and does nothing. A run that fails changes nothing.
CREATE FUNCTION "assay"."order_audit_events"(OUT ordered integer, OUT more boolean, OUT complete boolean)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  -- Plans are kept while tables grow, and nothing analyzes the embedded database. With sequential scans disabled, Postgres
  -- estimates such a high cost for a table with one row that it would compile each statement (JIT).
  SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
  DECLARE
    batch CONSTANT integer := 1000;
    -- This many ids are missing only if masses of acts fail while one transaction stays open. No further ids are processed until
    -- that transaction has ended, because each run writes all missing ids.
    most_missing CONSTANT integer := 10000;
    began timestamptz := assay.now();
    drawn bigint;
    state assay.audit_sequencer;
    missing_count integer;
    run record;
    lost int8multirange;
    still_missing int8multirange;
  BEGIN
    ordered := 0;
    more := false;
    -- Read after `began`: every event that was committed before `began` has drawn its id by now.
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO drawn FROM assay.audit_event_ids;
    SELECT last_id = drawn AND isempty(missing) AND complete_until BETWEEN began - interval '5 seconds' AND began
      INTO complete FROM assay.audit_sequencer;
    IF complete THEN
      RETURN;
    END IF;
    SELECT * INTO state FROM assay.audit_sequencer FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
      RETURN;
    END IF;
    SELECT count(*) INTO missing_count FROM unnest(state.missing);
    -- One statement, so that one snapshot decides what is there and which transactions have ended (`horizon`).
    WITH ranges AS MATERIALIZED (SELECT r FROM unnest(state.missing) AS r LIMIT batch),
    late AS MATERIALIZED (
      SELECT e.at, e.id FROM ranges, LATERAL (
        SELECT at, id FROM assay.audit_events WHERE id >= lower(r) AND id < upper(r)
      ) AS e LIMIT batch
    ),
    fresh AS MATERIALIZED (
      SELECT at, id FROM assay.audit_events WHERE id > state.last_id AND id <= drawn
      ORDER BY id LIMIT CASE WHEN missing_count < most_missing THEN batch ELSE 0 END
    )
    SELECT count(*)::integer AS events, array_agg(at ORDER BY id) AS at, array_agg(id ORDER BY id) AS ids,
      coalesce(range_agg(int8range(id, id, '[]')), '{}') AS found,
      coalesce((SELECT range_agg(r) FROM ranges), '{}') AS searched,
      (SELECT count(*) < batch FROM late) AS is_searched,
      (SELECT count(*) = batch FROM fresh) AS is_full,
      coalesce((SELECT max(id) FROM fresh), state.last_id) AS last_id,
      pg_snapshot_xmin(pg_current_snapshot()) AS horizon
      INTO run FROM (SELECT * FROM late UNION ALL SELECT * FROM fresh) AS e;
    still_missing := state.missing + int8multirange(int8range(state.last_id + 1, run.last_id + 1)) - run.found;
    IF run.is_searched AND run.horizon > state.barrier THEN
      lost := state.leaving * run.searched - run.found;
      still_missing := still_missing - lost;
      state.leaving := state.leaving - lost;
    END IF;
    state.leaving := state.leaving - run.found;
    -- A barrier from another server (the database was dumped and restored) may be far ahead of this one's numbers.
    state.barrier := least(state.barrier, pg_current_xact_id());
    IF isempty(state.leaving) THEN
      state.leaving := state.missing * still_missing;
      state.barrier := pg_current_xact_id();
    END IF;
    ordered := run.events;
    more := run.is_full OR NOT run.is_searched;
    complete := NOT more AND missing_count < least(batch, most_missing);
    IF ordered > 0 THEN
      INSERT INTO assay.audit_batches (first_position, last_position, at, ids, mark)
        VALUES (state.position + 1, state.position + ordered, run.at, run.ids, gen_random_uuid());
    END IF;
    UPDATE assay.audit_sequencer SET position = state.position + ordered, last_id = run.last_id, missing = still_missing,
      leaving = state.leaving, barrier = state.barrier,
      complete_until = CASE WHEN complete THEN began ELSE complete_until END;
  END $$;
--> statement-breakpoint
-- Deletes the oldest batches of the order whose events have all been deleted, at most `batch` of them, and returns how many.
-- The newest one stays, so that the cursor of a reader that has read everything can still be checked. A month that is only
-- detached may be attached again, and the sequencer never gives its events other positions. So their batches stay until the
-- month is dropped.
CREATE FUNCTION "assay"."delete_audit_batches"(batch integer) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
  DECLARE
    deleted integer;
  BEGIN
    WITH detached AS MATERIALIZED (
      SELECT right(relname, 7) AS month FROM pg_class
      WHERE relnamespace = 'assay'::regnamespace AND relkind = 'r' AND NOT relispartition AND relname ~ '^audit_events_\d{4}_\d{2}$'
    ),
    oldest AS MATERIALIZED (
      SELECT last_position, EXISTS (SELECT FROM unnest(b.at) AS u(at) JOIN detached ON month = to_char(u.at AT TIME ZONE 'UTC', 'YYYY_MM'))
        -- This condition comes second because it looks up each event, and finds none in the week for which a month is detached.
        OR EXISTS (SELECT FROM unnest(b.at, b.ids) AS u(at, id) JOIN assay.audit_events USING (at, id)) AS lives
      FROM assay.audit_batches AS b ORDER BY last_position LIMIT batch
    )
    DELETE FROM assay.audit_batches WHERE last_position IN (SELECT last_position FROM oldest)
      AND last_position < ALL (SELECT last_position FROM oldest WHERE lives)
      AND last_position < (SELECT max(last_position) FROM assay.audit_batches);
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
--> statement-breakpoint
REVOKE ALL ON FUNCTION "assay"."order_audit_events"() FROM PUBLIC;
--> statement-breakpoint
REVOKE ALL ON FUNCTION "assay"."delete_audit_batches"(integer) FROM PUBLIC;
