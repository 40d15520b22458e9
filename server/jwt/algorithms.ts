/** RFC 7518 3.1, and RFC 8037 for EdDSA, whose curve is always Ed25519 here. */
export const ASYMMETRIC = ['EdDSA', 'ES256', 'RS256'] as const

export type HmacAlgorithm = 'HS256' | 'HS384' | 'HS512'
export type AsymmetricAlgorithm = (typeof ASYMMETRIC)[number]
export type Algorithm = HmacAlgorithm | AsymmetricAlgorithm

export const isAsymmetric = (alg: unknown): alg is AsymmetricAlgorithm =>
  (ASYMMETRIC as readonly unknown[]).includes(alg)
