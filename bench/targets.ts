import { ASYMMETRIC } from './api.ts'
import { markdown, type Row, ratio } from './table.ts'
import { AT_OLD, OLD } from './trees.ts'

/** A target value, with the measured value and that of the old code in the same run. */
export interface Target {
  what: string
  measured: Measure
  /** The same value for the old code, if it takes part. */
  old?: Measure
  /** Undefined if the value is only stated. */
  asked?: Measure
  /** The target is an upper limit, not a lower one. */
  most?: boolean
  unit?: string
}

/** A constant, or a value computed from contenders and figures of a run. */
export interface Measure {
  needs: string[]
  /** Only called if everything in `needs` was measured. */
  of(run: Run): number
}

export interface Run {
  rows: Map<string, Row>
  figures: Map<string, number>
  /** Names of failed contenders and figures. */
  failed: Set<string>
}

export const fixed = (value: number): Measure => ({ needs: [], of: () => value })

/** The ratio of two rates or CPU times. */
export const part = (a: string, b: string, key: 'rate' | 'cpu' = 'rate'): Measure => ({
  needs: [a, b],
  of: ({ rows }) => ratio(rows.get(a)!, rows.get(b)!, key),
})

const rate = (name: string): Measure => ({ needs: [name], of: ({ rows }) => rows.get(name)!.rate })

export const figure = (name: string, times = 1): Measure => ({
  needs: [name],
  of: ({ figures }) => figures.get(name)! * times,
})

/**
 * Compares `name` with `other` for both versions of the code. At the old version `other` has the suffix `itsOwn`, which is empty
 * if one contender serves for both.
 */
const partOf = (what: string, name: string, other: string, asked: number, itsOwn = ''): Target => ({
  what,
  measured: part(name, other),
  old: part(name + AT_OLD, other + itsOwn),
  asked: fixed(asked),
})

const againstOld = (name: string, asked: number): Target => ({
  what: `${name} : the same at ${OLD}`,
  measured: part(name, name + AT_OLD),
  old: fixed(1),
  asked: fixed(asked),
})

const most = (name: string, asked: number, unit: string): Target => ({
  what: name,
  measured: figure(name),
  old: figure(name + AT_OLD),
  asked: fixed(asked),
  most: true,
  unit,
})

const perSecond = (name: string, asked: number): Target => ({
  what: name,
  measured: rate(name),
  old: rate(name + AT_OLD),
  asked: fixed(asked),
  unit: '/s',
})

/** Compares an asymmetric algorithm with HS512. */
const againstHs512 = (name: string, alg: string, asked?: number): Target => ({
  what: `${name}, ${alg} : the same with HS512`,
  measured: part(`${name}, ${alg}`, name),
  ...(asked !== undefined && { asked: fixed(asked) }),
})

const VERIFY = 'verify, tokens seen before'
const VERIFY_NEW = 'verify, every token new'
const LINES = 'lines of code without comments, server + db + cli'

/** Medians of one run, with Postgres on the same machine. */
export const TARGETS: Target[] = [
  partOf(`${VERIFY} : bare Hono`, VERIFY, 'bare Hono, /verify', 0.8),
  {
    what: `${VERIFY_NEW} : bare Hono`,
    measured: part(VERIFY_NEW, 'bare Hono, /verify'),
    // The old code has no token cache, so every token is new to it.
    old: part(VERIFY + AT_OLD, 'bare Hono, /verify'),
    asked: fixed(0.55),
  },
  againstOld(VERIFY, 1.2),
  {
    what: `${VERIFY}, CPU per answer : the same at ${OLD}`,
    measured: part(VERIFY, VERIFY + AT_OLD, 'cpu'),
    old: fixed(1),
    asked: fixed(0.85),
    most: true,
  },
  againstHs512(VERIFY, 'EdDSA', 0.9),
  ...ASYMMETRIC.map(alg => againstHs512(VERIFY_NEW, alg)),
  againstHs512('issue', 'EdDSA'),
  partOf('introspect : its bare Hono twin', 'introspect', 'bare Hono, /introspect', 0.95),
  partOf("introspect : oidc-provider's introspection", 'introspect', 'oidc-provider, introspection', 3.5),
  perSecond('introspect, batch of 100', 200_000),
  againstOld('issue', 0.95),
  againstOld('refresh', 0.95),
  partOf(
    'through nginx : nginx and a static nginx',
    'verify, through nginx',
    'nginx and a static nginx',
    0.85,
  ),
  partOf('key not cached : its raw select', 'verify, key not cached', 'its raw select', 0.45, AT_OLD),
  perSecond('issue, embedded', 3_000),
  most('start to ready on Postgres', 550, ' ms'),
  most('start to ready, embedded', 1_300, ' ms'),
  most('idle memory on Postgres', 145, ' MB'),
  {
    what: LINES,
    measured: figure(LINES),
    old: figure(LINES + AT_OLD),
    asked: figure(LINES + AT_OLD, 0.9),
    most: true,
  },
]

/** Names of everything that these targets are computed from. */
export const needsOf = (targets: Target[]) =>
  new Set(
    targets.flatMap(({ measured, old, asked }) => [measured, old, asked].flatMap(each => each?.needs ?? [])),
  )

/** Throws if a target needs a name that no contender or figure has, since the table would then lack a line. */
export function assertMeasured(targets: Target[], names: string[]) {
  const unknown = [...needsOf(targets)].filter(name => !names.includes(name))
  if (unknown.length > 0) throw new Error(`no contender or figure measures ${unknown.join('; ')}`)
}

const number = (value: number) =>
  value.toLocaleString('en', {
    maximumFractionDigits: value < 100 ? 2 : 0,
    minimumFractionDigits: value < 100 ? 2 : 0,
  })

export const holds = ({ most: atMost }: Pick<Target, 'most'>, has: number, asked: number) =>
  atMost ? has <= asked : has >= asked

/** Each measured value with its target. Targets that need an excluded contender are omitted. Empty if no target remains. */
export function targetsOf(run: Run, targets = TARGETS): string {
  const took = new Set([...run.rows.keys(), ...run.figures.keys(), ...run.failed])
  const told = targets.filter(each => [...needsOf([each])].every(name => took.has(name)))
  if (told.length === 0) return ''
  return markdown(
    ['what', `at ${OLD}`, 'target', 'measured', ''],
    told.map(target => lineOf(target, run)),
  )
}

function lineOf(target: Target, run: Run): string[] {
  if ([...needsOf([target])].some(name => run.failed.has(name))) return [target.what, '', '', '', 'FAILED']
  const show = (value: number) => `${number(value)}${target.unit ?? ''}`
  const [asked, has] = [target.asked?.of(run), target.measured.of(run)]
  return [
    target.what,
    target.old ? show(target.old.of(run)) : '',
    asked === undefined ? '' : `${target.most ? '<=' : '>='} ${show(asked)}`,
    show(has),
    asked === undefined ? 'no target' : holds(target, has, asked) ? 'holds' : 'MISSED',
  ]
}
