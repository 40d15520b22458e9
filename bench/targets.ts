import { markdown, type Row, ratio } from './table.ts'

/** What was asked for beside what was measured. */
export interface Target {
  what: string
  /** Undefined: one of the contenders was left out. */
  has(rows: Rows): number | undefined
  asked: number
  /** At most, instead of at least. */
  most?: boolean
  unit?: string
}

export type Rows = Map<string, Row>

/** A rate as a part of another's, or their p99. */
const against =
  (ours: string, theirs: string, key: 'rate' | 'p99' = 'rate') =>
  (rows: Rows) => {
    const [a, b] = [rows.get(ours), rows.get(theirs)]
    return a && b && ratio(a, b, key)
  }

const VERIFY = 'verify, known key'

/** Medians of one run, Postgres on the same machine. */
export const TARGETS: Target[] = [
  { what: 'verify : bare Hono', has: against(VERIFY, 'bare Hono, /verify'), asked: 0.7 },
  {
    what: "verify : oidc-provider's introspection",
    has: against(VERIFY, 'oidc-provider, introspection'),
    asked: 4,
  },
  {
    what: 'verify : the design that this replaces',
    has: against(VERIFY, 'jsonwebtoken and a query'),
    asked: 4,
  },
  {
    what: 'verify, p99 : bare Hono, p99',
    has: against(VERIFY, 'bare Hono, /verify', 'p99'),
    asked: 1.5,
    most: true,
  },
  { what: 'introspect : bare Hono', has: against('introspect', 'bare Hono, /introspect'), asked: 0.55 },
  {
    what: "introspect : oidc-provider's introspection",
    has: against('introspect', 'oidc-provider, introspection'),
    asked: 2.5,
  },
  {
    what: 'batch of 100, tokens a second',
    has: rows => rows.get('introspect, batch of 100')?.rate,
    asked: 100_000,
  },
  {
    what: 'through nginx : nginx and a static nginx',
    has: against('verify, through nginx', 'nginx and a static nginx'),
    asked: 0.75,
  },
  {
    what: "issue : oidc-provider's client_credentials",
    has: against('issue', 'oidc-provider, client_credentials'),
    asked: 1,
  },
  {
    what: "refresh : oidc-provider's client_credentials",
    has: against('refresh', 'oidc-provider, client_credentials'),
    asked: 1,
  },
  { what: 'issue : its statement, raw', has: against('issue', 'postgres.js, issue'), asked: 0.6 },
  { what: 'refresh : its statement, raw', has: against('refresh', 'postgres.js, refresh'), asked: 0.6 },
  {
    what: 'verify, key not cached : its select, raw',
    has: against('verify, key not cached', 'postgres.js, select'),
    asked: 0.4,
  },
  { what: 'garbage : verify', has: against('401, garbage', VERIFY), asked: 1 },
  { what: 'random kid : verify', has: against('401, random kid', VERIFY), asked: 1 },
  {
    what: 'revocations of 100 callers in its process, a second',
    has: rows => rows.get('revoke, 100 callers in its process')?.rate,
    asked: 10_000,
  },
]

const number = (value: number) =>
  value.toLocaleString('en', {
    maximumFractionDigits: value < 100 ? 2 : 0,
    minimumFractionDigits: value < 100 ? 2 : 0,
  })

export const holds = ({ asked, most }: Target, has: number) => (most ? has <= asked : has >= asked)

/** Each with its target beside it; what was left out isn't told. */
export function targetsOf(rows: Rows, more: Target[] = []): string {
  const lines = [...TARGETS, ...more].flatMap(target => {
    const has = target.has(rows)
    if (has === undefined) return []
    const unit = target.unit === undefined ? '' : ` ${target.unit}`
    const bound = `${target.most ? '<=' : '>='} ${number(target.asked)}${unit}`
    return [[target.what, `${number(has)}${unit}`, bound, holds(target, has) ? 'holds' : 'MISSED']]
  })
  return markdown(['what', 'measured', 'asked', ''], lines)
}
