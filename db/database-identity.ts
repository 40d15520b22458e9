/**
 * The system id of the server's files and the database's oid, as an SQL expression. It is the same for every way to one
 * database, and stays through restarts and promotions. A copy of the server's files has the same one.
 */
export const DATABASE_IDENTITY = `(select system_identifier from pg_control_system()) || '/' ||
      (select oid from pg_database where datname = current_database())`
