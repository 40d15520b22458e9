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

/** Explanations for the caller, each with a remedy. */
const WHY: Record<RejectionReason | SessionProblem | 'credential', [explanation: string, remedy: string]> = {
  credential: [
    'this is a credential of a customer or of a service, not a token',
    'send the access token that was issued with it',
  ],
  token_malformed: [
    'this is no JWT as Assay writes them: three segments of base64url, at most 8 KiB',
    'look whether it was cut, wrapped or quoted on its way, or is of another issuer',
  ],
  header_malformed: [
    'its header is not one that Assay writes for a token of this kind',
    'send an access token, not a refresh token, just as it was issued',
  ],
  key_unknown: [
    'the key that its kid names was never made here, or its customer is gone, or the key was retired',
    'get a new token; if that one fails too, look whether both sides use the same installation of Assay',
  ],
  key_not_in_use: [
    'it was signed with the key that is published to sign next, and that signs nothing yet',
    "after a restore or a failover that lost commits, wait until it expires; otherwise rotate this customer's secrets twice at once, with now: somebody else has its next private key",
  ],
  signature_wrong: [
    'it was not signed with the secret that its kid names',
    'look whether it was changed on its way; nobody but this installation can sign for this customer',
  ],
  claims_malformed: [
    'its claims are not as Assay writes them, though its signature is right',
    "rotate this customer's secrets at once: somebody else may have them",
  ],
  not_yet_valid: [
    'it was issued in the future, by the clock of the database',
    "look at the database's clock: it may have been set back",
  ],
  expired: ['it has expired', 'refresh it, or get a new one'],
  wrong_customer: [
    'it says that it is of another customer than the one whose secret signed it',
    "rotate that customer's secrets at once: somebody else may have them",
  ],
  wrong_issuer: [
    'its iss is not the issuer that its key signs for: ISSUER, and ISSUER/customers/... where the signature is asymmetric',
    'set ISSUER to the same URL on every replica, and as it was when the token was issued',
  ],
  token_revoked: ['this token was revoked', 'get a new one'],
  session_revoked: ['its session was ended', 'log in again'],
  subject_revoked: ['all tokens of its subject were revoked after it was issued', 'log in again'],
  customer_revoked: ['all tokens of its customer were revoked after it was issued', 'log in again'],
  everyone_revoked: ['all tokens of all customers were revoked after it was issued', 'log in again'],
  customer_disabled: ['its customer is disabled', 'enable the customer: assay customers enable ID'],
  session_ended: ['its session was ended', 'log in again'],
  session_expired: ['its session was not refreshed in time', 'log in again'],
  session_unknown: ['its session is not there, or not any more', 'log in again'],
  token_used: [
    'it was used before: its session has a later refresh token',
    "store the newest refresh token, and look at the session's audit for who used this one",
  ],
}

const ACTIVE = 'it is valid: signed here, in its time, and not revoked'

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
  const told = claims ?? (refusal !== undefined && SIGNED.has(refusal) ? claimsOf(text) : undefined)
  if (told && limits?.scopes && !scopesOf(told.scope).some(one => limits.scopes!.includes(one)))
    return because('key_unknown')
  const session = told && name && (await describeSession(db, name.customerId, told))
  const problem = refusal ?? (name?.use === 'refresh' ? problemOf(session) : undefined)
  return {
    ...(problem === undefined ? { active: true, explanation: ACTIVE } : because(problem)),
    ...(key && { key }),
    ...(told && { token: toToken(told) }),
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

/** Why a refresh token can't be used, judging by its session; undefined if it can. */
function problemOf(session: Explanation['session']): RejectionReason | SessionProblem | undefined {
  if (session === undefined || session.state === 'unknown') return 'session_unknown'
  if (session.everyone) return 'everyone_revoked'
  if (session.state === 'ended') return 'session_ended'
  if (session.state === 'expired') return 'session_expired'
  if (session.generation !== session.tokenGeneration) return 'token_used'
  return session.disabled ? 'customer_disabled' : undefined
}
