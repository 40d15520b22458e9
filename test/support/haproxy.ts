import { randomBytes } from 'node:crypto'
import { cp, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Addresses, type Gateway, runGateway, withAddresses } from './gateway.ts'
import { freePort } from './port.ts'
import { findProgram } from './program.ts'

const SHIPPED = join(import.meta.dirname, '../../deploy/haproxy')

export const findHaproxy = () => findProgram('haproxy')

/**
 * Runs a real HAProxy with the shipped files in its own folder. Only addresses and the socket's name are changed.
 * `broken`: further changes to assay.lua; `more`: further changes to haproxy.cfg.
 */
export async function startHaproxy(
  { assay, backend }: Addresses,
  broken: Record<string, string> = {},
  more: Record<string, string> = {},
): Promise<Gateway> {
  const port = await freePort()
  const folder = await mkdtemp(join(tmpdir(), 'assay-haproxy-'))
  await cp(SHIPPED, folder, { recursive: true })
  const edit = async (file: string, changes: Record<string, string>) =>
    writeFile(join(folder, file), withAddresses(await readFile(join(folder, file), 'utf8'), changes))
  const socket = { 'abns@assay': `abns@assay-${randomBytes(8).toString('hex')}` }
  await edit('assay.lua', { ...socket, ...broken })
  await edit('haproxy.cfg', {
    ...socket,
    'bind :8080': `bind 127.0.0.1:${port}`,
    'server assay1 127.0.0.1:3001': assay
      .map((one, index) => `server assay${index + 1} 127.0.0.1:${one}`)
      .join('\n    '),
    '127.0.0.1:3002': `127.0.0.1:${backend}`,
    ...more,
  })
  // -db: run in the foreground.
  return runGateway({ name: 'haproxy', args: ['-db', '-f', join(folder, 'haproxy.cfg')], port, folder })
}
