import type { KeyObject } from 'node:crypto'
import type { JWK } from 'jose'

/** A public key in each format that a careless verifier may use as the secret of an HMAC. */
export function publicSpellings(key: KeyObject, kid: string): Buffer[] {
  const jwk = key.export({ format: 'jwk' }) as JWK
  return [...jsonForms(jwk, kid), ...encodings(key), ...numbers(jwk)].map(form => Buffer.from(form as string))
}

/** As the input of a thumbprint, as in a JWKS, and the whole JWKS. */
function jsonForms(jwk: JWK, kid: string): string[] {
  const sorted = Object.fromEntries(Object.entries(jwk).toSorted())
  const named = { ...sorted, kid, use: 'sig' }
  return [jwk, sorted, named, { keys: [named] }].flatMap(form => [
    JSON.stringify(form),
    JSON.stringify(form, null, 2),
  ])
}

/** With and without the final line break of a PEM, which many tools drop or add. */
function encodings(key: KeyObject): (string | Buffer)[] {
  const types = key.asymmetricKeyType === 'rsa' ? (['spki', 'pkcs1'] as const) : (['spki'] as const)
  return types.flatMap(type => {
    const pem = key.export({ type, format: 'pem' }).toString()
    const der = key.export({ type, format: 'der' })
    const oneLine = der.toString('base64')
    return [pem, pem.trimEnd(), pem.replaceAll('\n', '\r\n'), oneLine, der.toString('hex'), der]
  })
}

/** x and y, or n: as bytes, as text, and as an elliptic point (SEC 1 2.3.3). */
function numbers({ x = '', y = '', n }: JWK): (string | Buffer)[] {
  if (n !== undefined) return [n, Buffer.from(n, 'base64url')]
  const bytes = [x, y].map(text => Buffer.from(text, 'base64url'))
  const point = Buffer.concat(bytes)
  const secret = [x, `${x}${y}`, bytes[0]!, point, Buffer.concat([Buffer.of(4), point])]
  return [...secret, Buffer.concat([point, Buffer.alloc(64 - point.length)])]
}
