import { cp, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Addresses, type Gateway, runGateway, withAddresses } from './gateway.ts'
import { freePort } from './port.ts'
import { findProgram } from './program.ts'

const SHIPPED = join(import.meta.dirname, '../../deploy/caddy')

export const findCaddy = () => findProgram('caddy')

/**
 * Runs a real Caddy with the shipped files in its own folder. Only addresses are changed; `more` is added to the
 * Caddyfile and `snippets` to assay.caddy.
 */
export async function startCaddy(
  { assay, backend }: Addresses,
  more: Record<string, string> = {},
  snippets: Record<string, string> = {},
): Promise<Gateway> {
  const port = await freePort()
  const folder = await mkdtemp(join(tmpdir(), 'assay-caddy-'))
  await cp(SHIPPED, folder, { recursive: true })
  const edit = async (file: string, changes: Record<string, string>) =>
    writeFile(join(folder, file), withAddresses(await readFile(join(folder, file), 'utf8'), changes))
  await edit('assay.caddy', {
    'to 127.0.0.1:3001': `to ${assay.map(one => `127.0.0.1:${one}`).join(' ')}`,
    ...snippets,
  })
  await edit('Caddyfile', {
    ':8080 {': `:${port} {\nbind 127.0.0.1`,
    '127.0.0.1:3002': `127.0.0.1:${backend}`,
    '127.0.0.1:2019': `unix/${folder}/admin.sock`,
    ...more,
  })
  const args = ['run', '--config', 'Caddyfile']
  return runGateway({ name: 'caddy', args, port, folder, env: { HOME: folder } })
}
