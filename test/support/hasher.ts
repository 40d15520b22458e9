import { createHook } from 'node:async_hooks'
import { hashPassword } from '../../server/crypto/password.ts'

/**
 * Counts password hashes where they are handed to the threads of this process, so that nothing stands in for the hasher.
 * The native module gives that work a resource type of its own, which is learned by hashing once.
 */
export async function countHashes() {
  const type = await typeOfWork()
  const running = new Set<number>()
  const counts = { started: 0, most: 0 }
  const hook = createHook({
    init(id, its) {
      if (its !== type) return
      counts.started++
      running.add(id)
      counts.most = Math.max(counts.most, running.size)
    },
    before: id => void running.delete(id),
  }).enable()
  return {
    /** How many hashes `run` starts, and how many of them at most at once. */
    async during(run: () => Promise<unknown>): Promise<{ started: number; most: number }> {
      Object.assign(counts, { started: 0, most: running.size })
      await run()
      return { ...counts }
    },
    stop: () => void hook.disable(),
  }
}

async function typeOfWork(): Promise<string> {
  const types = new Set<string>()
  const hook = createHook({ init: (_, type) => void types.add(type) }).enable()
  const hashed = hashPassword('any password')
  hook.disable()
  await hashed
  types.delete('PROMISE')
  const [type] = types
  if (type === undefined || types.size > 1)
    throw new Error(`hashing started work of the types ${[...types].join(', ')}: which is the hash?`)
  return type
}
