import { CorruptDatabaseError, DatabaseError, SchemaError, translate } from '../db/errors.ts'
import { SetupError, Unavailable } from './lib/errors.ts'
import { NotMigratedError } from './open-database.ts'

/** Why the process could not start, with an exit code that says who can fix it. */
export interface Failure {
  code: number
  message: string
}

/** A worker's failure, in the primary. */
export class StartError extends Error {
  readonly code: number

  constructor({ code, message }: Failure) {
    super(message)
    this.code = code || 1
  }
}

/** sysexits.h: the settings are wrong; the database can't be reached, or is damaged. */
const EX_CONFIG = 78
const EX_UNAVAILABLE = 69

/** Describes an expected failure. Rethrows any other error, which is a bug. */
export function describeFailure(error: unknown): Failure {
  if (error instanceof StartError) return { code: error.code, message: error.message }
  if (error instanceof SetupError) return { code: EX_CONFIG, message: `assay: ${error.message}` }
  if (error instanceof CorruptDatabaseError || error instanceof SchemaError)
    return { code: EX_UNAVAILABLE, message: `assay: ${error.message}` }
  if (error instanceof NotMigratedError) {
    const code = error.state === 'none' ? EX_CONFIG : EX_UNAVAILABLE
    return { code, message: `assay: ${error.message}` }
  }
  const translated = translate(error)
  if (translated instanceof DatabaseError && translated.sqlstate === '42501')
    return { code: EX_CONFIG, message: NO_RIGHTS }
  if (!(translated instanceof Unavailable)) throw translated
  const message = `assay: ${unreachable(translated.detail ?? '')}; check DATABASE_URL, and DIRECT_DATABASE_URL if it is set`
  return { code: EX_UNAVAILABLE, message }
}

const NO_RIGHTS =
  'assay: the role of DATABASE_URL lacks rights on this database or its schema assay; grant them as ' +
  'deploy/postgres/roles.sql does, or let the role own the schema: alter schema assay owner to ROLE'

/** Explains why the database is unusable, from the driver's error code or the server's SQLSTATE. */
function unreachable(detail: string): string {
  const code = detail.replace(/^database: /, '')
  const why = WHY[code] ?? WHY[code.slice(0, 2)]
  return `the database can't be used${why === undefined ? '' : `: ${why}`} (${detail})`
}

const UNTRUSTED =
  "the server's certificate is not signed by a trusted CA; name its CA's file with sslrootcert=FILE in the URL"

/** Explanations by code, or by the class of an SQLSTATE, which is its first two characters. */
const WHY: Record<string, string> = {
  '3D000': 'this database does not exist; create it (createdb NAME)',
  '28P01': 'the user or the password is wrong',
  '28000_WITHOUT_TLS':
    'the server refuses this user, database or address; if it requires TLS, add sslmode=require to the URL, or ' +
    'sslmode=verify-full and sslrootcert=FILE to check its certificate as well',
  '28': 'the server refuses this user, database or address (pg_hba.conf)',
  '53300':
    'it has no free connection; raise its max_connections or the connection limit of the role or database, or start fewer replicas or WORKERS',
  '55P03':
    'a migration waits for a table that another transaction uses; end the longest transactions (pg_stat_activity), and try again',
  '57P03': 'it is starting, stopping or recovering; try again',
  ENOENT: 'a file that its URL names (sslrootcert, sslcert, sslkey) does not exist',
  ENOTFOUND: 'the host name does not exist',
  EAI_AGAIN: 'the host name could not be resolved; check DNS',
  ECONNREFUSED: 'nothing listens at this host and port',
  ECONNRESET: 'the server closed the connection; is it Postgres?',
  CONNECTION_CLOSED: 'the server closed the connection; is it Postgres?',
  NOT_POSTGRES: 'the server at this host and port is not Postgres',
  UNKNOWN_LOGIN:
    'the server requires an authentication method that Assay does not support; set scram-sha-256, md5 or cert in pg_hba.conf',
  EHOSTUNREACH: 'there is no route to this host',
  ETIMEDOUT: 'nothing answers at this host and port',
  NO_TLS: 'the server does not offer TLS; set sslmode=disable in the URL, or turn on ssl in its settings',
  READ_ONLY:
    'it is read-only: default_transaction_read_only is on for the server, the database or the role. Some providers turn it ' +
    'on when the disk is full. Turn it off, or use a database that can be written to',
  ERR_TLS_CERT_ALTNAME_INVALID:
    "the server's certificate is for another host; use the host name of the certificate, or sslmode=verify-ca",
  DEPTH_ZERO_SELF_SIGNED_CERT: UNTRUSTED,
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
  CERT_SIGNATURE_FAILURE: UNTRUSTED,
  CERT_HAS_EXPIRED: "the server's certificate has expired; renew it",
  STANDBY: 'it is a standby, which is read-only; use the primary, or promote the standby',
  CONNECT_TIMEOUT: 'nothing answers at this host and port',
}
