import { DatabaseDamaged, DatabaseError, SchemaUnfit, translate } from '../db/failures.ts'
import { ConfigError } from './config.ts'
import { DataDirInUse, DataDirUnusable, MasterKeyMissing } from './datadir.ts'
import { Unavailable } from './errors.ts'
import { ListenError } from './listen.ts'
import { WrongMasterKey } from './vault.ts'

/** What kept it from starting, and the exit code that says whose it is to mend. */
export interface Failure {
  code: number
  message: string
}

/** A worker's failure, in the primary. */
export class FailedStart extends Error {
  readonly code: number

  constructor({ code, message }: Failure) {
    super(message)
    this.code = code || 1
  }
}

/** sysexits.h: the settings are wrong; the database can't be reached, or is damaged. */
const EX_CONFIG = 78
const EX_UNAVAILABLE = 69

/** Throws what is a bug. */
export function failureOf(error: unknown): Failure {
  if (error instanceof FailedStart) return { code: error.code, message: error.message }
  const settings = [ConfigError, DataDirInUse, DataDirUnusable, MasterKeyMissing, WrongMasterKey, ListenError]
  if (settings.some(kind => error instanceof kind))
    return { code: EX_CONFIG, message: `assay: ${(error as Error).message}` }
  if (error instanceof DatabaseDamaged || error instanceof SchemaUnfit)
    return { code: EX_UNAVAILABLE, message: `assay: ${error.message}` }
  const translated = translate(error)
  if (translated instanceof DatabaseError && translated.sqlstate === '42501')
    return { code: EX_CONFIG, message: NO_RIGHTS }
  if (!(translated instanceof Unavailable)) throw translated
  const message = `assay: ${unreachable(translated.detail ?? '')}; check DATABASE_URL, and DIRECT_DATABASE_URL if it is set`
  return { code: EX_UNAVAILABLE, message }
}

const NO_RIGHTS = `assay: this database user may not make or use the schema assay; as the database's owner:
  grant create on database NAME to USER;    and, if the schema is there, make USER its owner`

/** In words, by the driver's or the server's code. */
function unreachable(detail: string): string {
  const why = Object.entries(WHY).find(([code]) => detail.startsWith(`database: ${code}`))?.[1]
  return `the database can't be used${why === undefined ? '' : `: ${why}`} (${detail})`
}

const WHY = {
  '3D000': 'this database does not exist; create it (createdb NAME)',
  '28': 'the user or the password is wrong, or the server lets this user in from elsewhere only',
  '53300': 'it has no connection left; raise its max_connections, or start fewer replicas or WORKERS',
  '55P03':
    'its schema is to be changed, and a table of it is in use; end what has been open for long (pg_stat_activity), and try again',
  '57P03': 'it is starting, stopping or recovering; try again',
  ENOENT: 'a file that its URL names (sslrootcert, sslcert, sslkey) is not there',
  ENOTFOUND: 'there is no such host',
  EAI_AGAIN: 'its name could not be looked up; is DNS there?',
  ECONNREFUSED: 'nothing listens at this host and port',
  ECONNRESET: 'the server hung up; is it Postgres?',
  CONNECTION_CLOSED: 'the server hung up; is it Postgres?',
  EHOSTUNREACH: 'there is no way to this host',
  ETIMEDOUT: 'nothing answers at this host and port',
  STANDBY: 'it is a standby, which only reads; name the primary, or promote it',
  CONNECT_TIMEOUT: 'nothing answers at this host and port',
}
