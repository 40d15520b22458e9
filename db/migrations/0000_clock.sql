-- All times in SQL come from this function, so that a test can move them. It returns the current time and not the transaction's
-- start, because a statement that waited for a row's lock must decide by the time after the wait. It returns whole milliseconds,
-- so that a time that a client reads and sends back in a cursor is the same time.
CREATE FUNCTION "assay"."now"() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
  AS 'SELECT date_trunc(''milliseconds'', clock_timestamp())';
