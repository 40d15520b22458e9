import { checkRedis } from '../../../db/redis-check.ts'
import { RedisFailure } from '../../../db/redis-errors.ts'
import { type CheckResult, ok, wrong } from '../result.ts'

/** Runs the commands of a server, because a Redis that answers PING may still refuse every one of them. */
export async function redis(url: string): Promise<CheckResult> {
  try {
    await checkRedis(url)
    return ok('it accepts every command of Assay')
  } catch (error) {
    if (!(error instanceof RedisFailure)) throw error
    return describe(error.message.replace(/^Redis: /, ''))
  }
}

/** `reason` is the first word of an error reply, or a code, with the command that it answers in parentheses. */
function describe(reason: string): CheckResult {
  const [found, remedy] = EXPLANATIONS[/^[A-Z]+/.exec(reason)?.[0] ?? ''] ?? UNKNOWN
  return wrong(`${found} (${reason})`, `${remedy}; until then Assay works without Redis, only slower`)
}

const GRANT =
  'grant what Assay uses: acl setuser NAME ~assay:* &assay:* +set +getrange +del +eval +incrby +expire +pttl +publish +subscribe'
const LOGIN = 'set the right user and password in REDIS_URL'

const NO_CLUSTER = 'point REDIS_URL at a single server, because Assay does not support clusters'

const UNKNOWN = ["it can't be used", 'fix REDIS_URL, or start Redis']

/** Describes the problem and its fix, by the first word of the reason. */
const EXPLANATIONS: Record<string, [found: string, remedy: string]> = {
  READONLY: ['it is a replica, which is read-only', 'point REDIS_URL at the primary'],
  NOPERM: ['its user may not run a command that Assay needs', GRANT],
  ERR: ['it refuses a command that Assay needs', `check its log; if its user is restricted, ${GRANT}`],
  CLUSTERDOWN: ['its cluster is down', NO_CLUSTER],
  MOVED: ['it is part of a cluster', NO_CLUSTER],
  OOM: ['its memory is full', 'set its maxmemory-policy to allkeys-lru, or raise maxmemory'],
  MISCONF: ["it refuses writes, because it can't save its data", 'free space on its disk'],
  WRONGPASS: ['its user or password is wrong', LOGIN],
  NOAUTH: ['it asks for a password', LOGIN],
}
