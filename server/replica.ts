import { createApp } from './app.ts'
import { instrumentDatabase, instrumentRedis } from './instrument.ts'
import { Maintenance } from './jobs.ts'
import { tracingOfSdk } from './lib/tracing.ts'
import { createServices, type Parts } from './services.ts'

/** Creates one replica from its parts. Tests create several in one process. */
export function createReplica(parts: Parts) {
  const tracing = tracingOfSdk(parts.clock)
  const services = createServices(tracing ? traced(parts) : parts)
  const maintenance = new Maintenance(services)
  const app = createApp(services, tracing)
  if (tracing) parts.log.info('an OpenTelemetry SDK is loaded; requests are traced')

  /** Flushes pending writes and leaves the change feed. */
  async function stop() {
    const { sessions, clients, changeFeed, sequencer } = services
    await Promise.all([maintenance.stop(), sequencer.stop()])
    await Promise.all([sessions.stop(), clients.stop()])
    await changeFeed.stop()
    await tracing?.flush()
  }

  return { ...services, app, maintenance, stop }
}

const traced = (parts: Parts): Parts => ({
  ...parts,
  db: instrumentDatabase(parts.db),
  redis: parts.redis && instrumentRedis(parts.redis),
})
