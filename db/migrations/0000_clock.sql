-- All time in SQL comes from here, so that a test can move it. The clock of the moment, not of the transaction's start:
-- what a statement decides after it waited for a row's lock is decided by the time after the wait. Whole milliseconds,
-- so that a time read by a client and sent back as a cursor is the same time.
CREATE FUNCTION "assay"."now"() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
  AS 'SELECT date_trunc(''milliseconds'', clock_timestamp())';
