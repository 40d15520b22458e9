import { SETTINGS } from './schema.ts'

const KNOWN = SETTINGS.flatMap(({ name, secret }) => (secret ? [name, `${name}_FILE`] : [name]))

/** Shorter names are one edit from many words that have nothing to do with Assay. */
const MIN_LENGTH_FOR_TWO_EDITS = 8

/** A line for each variable whose name is nearly that of a setting. Other names belong to other programs. No value is repeated. */
export function describeMisspelt(env: Record<string, string | undefined>): string[] {
  return Object.keys(env).flatMap(name => {
    const meant = env[name] && !KNOWN.includes(name) ? findSetting(name.toUpperCase()) : undefined
    return meant === undefined ? [] : [`${name}: is not a setting and is ignored; did you mean ${meant}?`]
  })
}

const findSetting = (name: string) =>
  KNOWN.find(known => isWithin(1, name, known)) ??
  KNOWN.find(known => known.length >= MIN_LENGTH_FOR_TWO_EDITS && isWithin(2, name, known))

/**
 * Whether at most this many edits turn one text into the other. An edit replaces, adds or removes a letter, or swaps two adjacent
 * letters.
 */
function isWithin(edits: number, one: string, other: string): boolean {
  const start = commonStart(one, other)
  const [a, b] = [one.slice(start), other.slice(start)]
  if (a === b || edits === 0) return a === b
  const areSwapped = a.length > 1 && a[0] === b[1] && a[1] === b[0]
  return (
    isWithin(edits - 1, a.slice(1), b.slice(1)) ||
    isWithin(edits - 1, a.slice(1), b) ||
    isWithin(edits - 1, a, b.slice(1)) ||
    (areSwapped && isWithin(edits - 1, a.slice(2), b.slice(2)))
  )
}

function commonStart(one: string, other: string): number {
  let length = 0
  while (length < one.length && one[length] === other[length]) length++
  return length
}
