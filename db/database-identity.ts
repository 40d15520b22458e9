/**
 * The system id of the server's files and the database's oid, as an SQL expression. It does not depend on the connection, and it
 * survives restarts and promotions. A copy of the server's files has the same identity.
 */
export const DATABASE_IDENTITY = `(select system_identifier from pg_control_system()) || '/' ||
      (select oid from pg_database where datname = current_database())`
