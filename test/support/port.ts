import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'

/** A free port of loopback, below those that the system gives to outgoing connections: it stays free until it is used. */
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
