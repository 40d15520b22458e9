import { expect, test } from 'vitest'
import { generatePrivateKey, KeyPair } from '../server/jwt/key-pair.ts'
import { Signatures } from '../server/tokens/signatures.ts'

const HEADER = { alg: 'RS256', typ: 'at+jwt', kid: 'k1' } as const

test('a customer whose signatures are expensive and many delays no other customer by more than its turn', async () => {
  const signatures = new Signatures()
  const busy = new KeyPair('RS256', await generatePrivateKey('RS256'))
  const quiet = new KeyPair('ES256', await generatePrivateKey('ES256'))
  let done = 0
  const many = Array.from({ length: 300 }, () =>
    signatures.sign('busy', busy, HEADER, { sub: 'x' }).then(() => done++),
  )
  const before = await signatures
    .sign('quiet', quiet, { ...HEADER, alg: 'ES256' }, { sub: 'y' })
    .then(() => done)
  expect(before).toBeLessThan(10)
  await Promise.all(many)
  expect(done).toBe(300)
})
