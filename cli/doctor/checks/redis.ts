import { checkRedis } from '../../../db/redis-check.ts'
import { RedisFailure } from '../../../db/redis-errors.ts'
import { type CheckResult, ok, wrong } from '../result.ts'

/** Runs the commands of a server, because a Redis that answers PING may still refuse every one of them. */
export async function redis(url: string): Promise<CheckResult> {
  try {
    await checkRedis(url)
    return ok('it takes every command of a server')
  } catch (error) {
    if (!(error instanceof RedisFailure)) throw error
    return describe(error.message.replace(/^Redis: /, ''))
  }
}

/** `reason` is the first word of an error reply, or a code, with the command that it answers in parentheses. */
function describe(reason: string): CheckResult {
  const [found, remedy] = EXPLANATIONS[/^[A-Z]+/.exec(reason)?.[0] ?? ''] ?? UNKNOWN
  return wrong(`${found} (${reason})`, `${remedy}; without Redis Assay is only slower`)
}

const GRANT =
  'grant what a server uses: acl setuser NAME ~assay:* &assay:* +set +getrange +eval +incrby +expire +pttl +publish +subscribe'
const LOGIN = 'put the right user and password into REDIS_URL'

const UNKNOWN = ['it can not be used', 'fix REDIS_URL, or start Redis']

/** Describes the problem and its fix, by the first word of the reason. */
const EXPLANATIONS: Record<string, [found: string, remedy: string]> = {
  READONLY: ['it is a replica, which only reads', 'let REDIS_URL lead to the primary'],
  NOPERM: ['its user may not run a command of Assay', GRANT],
  ERR: ['it refuses a command of Assay', `look at its log; if its user is restricted, ${GRANT}`],
  CLUSTERDOWN: ['its cluster is down', 'let REDIS_URL lead to a single server: Assay uses no cluster'],
  MOVED: ['it is part of a cluster', 'let REDIS_URL lead to a single server: Assay uses no cluster'],
  OOM: ['its memory is full', 'set its maxmemory-policy to allkeys-lru, or raise maxmemory'],
  MISCONF: ['it takes no writes because it can not save its data', 'make room on its disk'],
  WRONGPASS: ['its user or password is wrong', LOGIN],
  NOAUTH: ['it asks for a password', LOGIN],
}
