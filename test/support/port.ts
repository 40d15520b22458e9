import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'

/** A free loopback port below the ephemeral range, so that no outgoing connection takes it before it is used. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000)
    const server = createServer().listen(port, '127.0.0.1')
    const taken = await Promise.race([once(server, 'listening').then(() => false), failed(server)])
    if (taken) continue
    server.close()
    await once(server, 'close')
    return port
  }
}

const failed = (server: ReturnType<typeof createServer>) =>
  new Promise<true>(resolve => server.once('error', () => resolve(true)))
