import type { Querier } from '../../db/queries/change-feed.ts'
import { type ExplainedSession, explainKey, explainSession } from '../../db/queries/explain.ts'
import type { AllowList } from '../clients/service-clients.ts'
import type { KeyRing } from '../crypto/key-ring.ts'
import type { AccessClaims } from '../jwt/claims.ts'
import { parseClaims, parseHeader, split } from '../jwt/jwt.ts'
import { type KeyName, parseKid } from '../jwt/kid.ts'
import { scopesOf } from '../jwt/scopes.ts'
import type { Services } from '../services.ts'
import type { RejectionReason, TokenVerifier } from './verifier.ts'

/** Why a token is accepted or refused, for callers who are allowed to know. */
export interface Explanation {
  active: boolean
  /** The first check that failed. */
  reason?: RejectionReason | SessionProblem | 'credential'
  explanation: string
  /** How to fix it. */
  remedy?: string
  /** Read from the kid, whose MAC shows that we made it. */
  key?: {
    kid: string
    customerId: string
    use: 'access' | 'refresh'
    version: number
    state: string
    alg: string | undefined
  }
  /** Claims of the token, given only if its signature is valid. */
  token?: { id: string; subject: string; issuedAt: number; expiresAt: number }
  session?: { id: string; state: string; generation?: number; tokenGeneration: number } & Partial<
    Pick<ExplainedSession, 'disabled' | 'everyone'>
  >
}

type SessionProblem = 'session_ended' | 'session_expired' | 'session_unknown' | 'token_used'

const ROTATE = 'assay secrets rotate CUSTOMER --now'
/** The customer is the one that the kid names. */
const LEAKED = `somebody else may have the customer's secrets: rotate them immediately (${ROTATE}), and follow "Leaked secrets of a customer" in docs/operating.md`

/** Explanations for the caller, each with a remedy. */
const WHY: Record<RejectionReason | SessionProblem | 'credential', [explanation: string, remedy: string]> = {
  credential: [
    'this is an API key or a service credential, not a token',
    'send the access token that was issued with it',
  ],
  token_malformed: [
    'this is not a token from Assay, which has three base64url segments and at most 8 KiB',
    'check whether it was truncated, wrapped or quoted in transit, or comes from another issuer',
  ],
  header_malformed: [
    'the header of the token is not one that Assay writes for this kind of token',
    'send an access token, not a refresh token, exactly as it was issued',
  ],
  key_unknown: [
    'the key that signed the token is unknown here: it was never created, its customer was erased, or it was retired',
    'get a new token; if that one fails too, check that both sides use the same installation of Assay',
  ],
  key_not_in_use: [
    'the token was signed with the published next key, which has not signed anything yet',
    `after a restore or a failover that lost commits, wait until the token expires; otherwise ${LEAKED}`,
  ],
  signature_wrong: [
    'the signature of the token does not match the key that its kid names',
    'check whether the token was changed in transit; otherwise it was forged, without success, and you need to do nothing',
  ],
  claims_malformed: [
    'the signature of the token is valid, but its claims are not in the form that Assay writes',
    LEAKED,
  ],
  not_yet_valid: [
    "the token was issued in the future, by the database's clock",
    "check the database's clock, which may have been set back, and get a new token",
  ],
  expired: ['the token has expired', 'refresh it or get a new one'],
  wrong_customer: ['the token names another customer than the one whose key signed it', LEAKED],
  wrong_issuer: [
    'the iss of the token is not the issuer of its key: ISSUER, or ISSUER/customers/... for asymmetric signatures',
    'set ISSUER to the same URL on every replica, the one with which the token was issued, or get a new token',
  ],
  token_revoked: ['the token was revoked', 'get a new one'],
  session_revoked: ['the session of the token was ended', 'log in again'],
  subject_revoked: ['all tokens of the subject were revoked after this one was issued', 'log in again'],
  customer_revoked: ['all tokens of the customer were revoked after this one was issued', 'log in again'],
  everyone_revoked: ['all tokens of all customers were revoked after this one was issued', 'log in again'],
  customer_disabled: [
    'the customer of the token is disabled',
    'enable the customer: assay customers enable CUSTOMER',
  ],
  session_ended: ['the session of the token was ended', 'log in again'],
  session_expired: [
    'the session of the token has expired because it was not refreshed in time',
    'log in again',
  ],
  session_unknown: ['the session of the token does not exist, or no longer exists', 'log in again'],
  token_used: [
    'the refresh token was used before, and its session has a newer one',
    'use the newest refresh token; if the client did not use this one, see who did: assay audit --customer CUSTOMER',
  ],
}

const ACTIVE = 'the token is valid: Assay signed it, it has not expired, and it is not revoked'

/** Reasons that are found only after the signature was verified, so the token's claims can be shown. */
const SIGNED = new Set<RejectionReason>([
  'not_yet_valid',
  'expired',
  'wrong_issuer',
  'token_revoked',
  'session_revoked',
  'subject_revoked',
  'customer_revoked',
  'everyone_revoked',
  'customer_disabled',
])

/**
 * `limits` is the allow-list of a service: it learns nothing about other customers, other scopes or
 * refresh tokens. Throws Unavailable when the state can't be known.
 */
export async function explainToken(
  { db, keyRing, tokens }: Services,
  text: string,
  limits?: AllowList,
): Promise<Explanation> {
  if (/^assay_(ak|sv)_/.test(text)) return because('credential')
  const name = parseName(keyRing, text)
  if (name && limits && isBeyond(limits, name)) return because('key_unknown')
  const { refusal, claims } = await judge(tokens, text, name)
  const key = name && (await describeKey(db, name))
  const shown = claims ?? (refusal !== undefined && SIGNED.has(refusal) ? claimsOf(text) : undefined)
  if (shown && limits?.scopes && !scopesOf(shown.scope).some(one => limits.scopes!.includes(one)))
    return because('key_unknown')
  const session = shown && name && (await describeSession(db, name.customerId, shown))
  const problem = refusal ?? (name?.use === 'refresh' ? problemOf(session) : undefined)
  return {
    ...(problem === undefined ? { active: true, explanation: ACTIVE } : because(problem)),
    ...(key && { key }),
    ...(shown && { token: toToken(shown) }),
    ...(session && { session }),
  }
}

function parseName(keyRing: KeyRing, text: string): (KeyName & { kid: string }) | undefined {
  const token = split(text)
  const header = token && parseHeader(token.header)
  const name = header && parseKid(keyRing.installationKey, header.kid)
  return name && { ...name, kid: header.kid }
}

async function judge(tokens: TokenVerifier, text: string, name: KeyName | undefined) {
  const verdict = name?.use === 'refresh' ? await tokens.verifyRefresh(text) : await tokens.verify(text)
  return { refusal: verdict.refusal, claims: verdict.claims as Claims | undefined }
}

async function describeKey(db: Querier, { kid, customerId, use, version }: KeyName & { kid: string }) {
  const [found] = await explainKey(db, { customerId, use, version })
  return { kid, customerId, use, version, state: found?.state ?? 'unknown', alg: found?.alg }
}

async function describeSession(db: Querier, customerId: string, { sid, gen }: Claims) {
  if (sid === undefined || gen === undefined) return undefined
  const [found] = await explainSession(db, { customerId, sessionId: sid })
  if (!found) return { id: sid, tokenGeneration: gen, state: 'unknown' }
  const { state, generation, disabled, everyone } = found
  return { id: sid, tokenGeneration: gen, state, generation, disabled, everyone }
}

const isBeyond = ({ customers }: AllowList, { use, customerId }: KeyName) =>
  use === 'refresh' || customers?.includes(customerId) === false

type Claims = Pick<AccessClaims, 'jti' | 'sub' | 'scope' | 'iat' | 'exp' | 'sid' | 'gen'>

const claimsOf = (text: string) => parseClaims(split(text)!.claims) as unknown as Claims

const toToken = ({ jti, sub, iat, exp }: Claims) => ({ id: jti, subject: sub, issuedAt: iat, expiresAt: exp })

function because(reason: RejectionReason | SessionProblem | 'credential') {
  const [explanation, remedy] = WHY[reason]
  return { active: false, reason, explanation, remedy }
}

/** Why a refresh token can't be used, according to its session; undefined if it can. */
function problemOf(session: Explanation['session']): RejectionReason | SessionProblem | undefined {
  if (session === undefined || session.state === 'unknown') return 'session_unknown'
  if (session.everyone) return 'everyone_revoked'
  if (session.state === 'ended') return 'session_ended'
  if (session.state === 'expired') return 'session_expired'
  if (session.generation !== session.tokenGeneration) return 'token_used'
  return session.disabled ? 'customer_disabled' : undefined
}
