import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Test certificate authorities and the certificates they sign, made with openssl. */

export interface Authority {
  /** The path of its certificate. */
  file: string
  /**
   * Creates certificate and key files for hosts in the notation of openssl: `DNS:db.test`, `IP:127.0.0.1`. They get the
   * owner of `folder`, and only that user can read the key.
   */
  sign(name: string, hosts: string[], folder: string): { cert: string; key: string }
  remove(): void
}

export function makeAuthority(): Authority {
  const home = mkdtempSync(join(tmpdir(), 'assay-ca-'))
  chmodSync(home, 0o755)
  const at = (name: string) => join(home, name)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'ignore' })
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  openssl(
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    at('key'),
    '-out',
    at('ca.crt'),
    '-subj',
    '/CN=a test',
    '-days',
    '2',
  )

  function sign(name: string, hosts: string[], folder: string) {
    const [cert, key] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)]
    writeFileSync(at('extensions'), `subjectAltName=${hosts.join(',')}`)
    openssl('req', ...newKey, '-keyout', key, '-out', at('request'), '-subj', `/CN=${name}`)
    const by = ['-CA', at('ca.crt'), '-CAkey', at('key'), '-CAcreateserial', '-extfile', at('extensions')]
    openssl('x509', '-req', '-in', at('request'), '-out', cert, '-days', '2', ...by)
    const { uid, gid } = statSync(folder)
    for (const file of [cert, key]) chownSync(file, uid, gid)
    chmodSync(key, 0o600)
    return { cert, key }
  }

  return { file: at('ca.crt'), sign, remove: () => rmSync(home, { recursive: true }) }
}
