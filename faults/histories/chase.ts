import { setTimeout as sleep } from 'node:timers/promises'
import { N } from '../stage.ts'
import * as asks from './asks.ts'
import type { Client } from './client.ts'
import type { Access } from './holdings.ts'
import type { Random } from './seeded.ts'

/** Presents revoked tokens where and when a wrong yes is most likely. */

export function present(me: Client, random: Random, token: Access, replica: number) {
  const ask = random.chance(0.2) ? asks.introspect : asks.verify
  return me.send(me.name, replica, ask(token, random.chance(0.1)))
}

/** Presents the tokens at every replica, at once and again shortly before or after the bound. */
export async function chase(me: Client, random: Random, tokens: Access[]) {
  const everywhere = () =>
    Promise.all(
      Array.from({ length: me.replicas }, (_, replica) => replica).flatMap(replica =>
        tokens.map(token => present(me, random, token, replica)),
      ),
    )
  await everywhere()
  await sleep(N * (0.5 + 0.6 * random.below(2)))
  await everywhere()
}
