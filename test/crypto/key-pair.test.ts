import { expect, test } from 'vitest'
import { split } from '../../server/jwt/jwt.ts'
import { KeyPair } from '../../server/jwt/key-pair.ts'

/**
 * The published examples of each algorithm, with keys and signatures made by others. No npm or Debian package is known to
 * contain the Wycheproof vectors; test/api/asymmetric.hazards.test.ts makes malformed signatures for its own keys.
 */

/** The message that the examples of RFC 7515 sign. */
const JOE = 'eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ'

const EXAMPLES = [
  {
    source: 'RFC 8037 A.4',
    alg: 'EdDSA',
    jwk: { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' },
    token:
      'eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg',
  },
  {
    source: 'RFC 7515 A.3',
    alg: 'ES256',
    jwk: {
      kty: 'EC',
      crv: 'P-256',
      x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
      y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
    },
    token: `eyJhbGciOiJFUzI1NiJ9.${JOE}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q`,
  },
  {
    source: 'RFC 7515 A.2',
    alg: 'RS256',
    jwk: {
      kty: 'RSA',
      n: 'ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ',
      e: 'AQAB',
    },
    token: `eyJhbGciOiJSUzI1NiJ9.${JOE}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw`,
  },
] as const

test.each(EXAMPLES)('the example of $source ($alg) verifies, and no other message does', async example => {
  const { alg, jwk, token } = example
  const pair = new KeyPair(alg, Buffer.from(JSON.stringify(jwk)))
  const parts = split(token)!
  expect([pair.canSign, pair.hasLength(parts)]).toEqual([false, true])
  expect(await pair.verifies(parts)).toBe(true)
  const [header, claims] = parts.signingInput.split('.')
  const other = { ...parts, signingInput: `${header}.${claims}A` }
  expect(await pair.verifies(other)).toBe(false)
})

test.each(EXAMPLES)(
  'with any bit flipped, the signature of $source does not verify',
  async ({ alg, jwk, token }) => {
    const pair = new KeyPair(alg, Buffer.from(JSON.stringify(jwk)))
    const parts = split(token)!
    const signature = Buffer.from(parts.signature, 'base64url')
    for (let bit = 0; bit < signature.length * 8; bit++) {
      const flipped = Buffer.from(signature)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      const verified = await pair.verifies({ ...parts, signature: flipped.toString('base64url') })
      expect(verified, `bit ${bit}`).toBe(false)
    }
  },
)

const [EDDSA] = EXAMPLES
const pair = () => new KeyPair('EdDSA', Buffer.from(JSON.stringify(EDDSA!.jwk)))

test('the keys of the ten thousand most recently used pairs stay imported; others are imported again', async () => {
  const token = split(EDDSA!.token)!
  const [oldest, ...others] = Array.from({ length: 10_001 }, pair)
  for (const one of [oldest!, ...others]) expect(await one.verifies(token)).toBe(true)
  expect([oldest!.isImported, others[0]!.isImported, others.at(-1)!.isImported]).toEqual([false, true, true])
  expect(await oldest!.verifies(token)).toBe(true)
  expect([oldest!.isImported, others[0]!.isImported]).toEqual([true, false])
  for (const one of others) one.release()
})

test('a pair whose record is no longer in use drops its keys', async () => {
  const own = pair()
  await own.verifies(split(EDDSA!.token)!)
  own.release()
  expect(own.isImported).toBe(false)
})
