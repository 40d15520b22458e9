import { InvalidArgumentError } from 'commander'

const UNIT_SECONDS = { d: 86_400, h: 3_600, m: 60, s: 1 }

/** `90d` as seconds. */
export function toSeconds(text: string): number {
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? []
  if (!count) throw new InvalidArgumentError('Use a number and a unit (s m h d), for example 15m, or default')
  return Number(count) * UNIT_SECONDS[unit as keyof typeof UNIT_SECONDS]
}

/** Seconds in the largest unit that gives a whole number. A maximum age of 0 means never. */
export function formatSeconds(seconds: number): string {
  if (seconds === 0) return 'never'
  const [unit, length] = Object.entries(UNIT_SECONDS).find(([, length]) => seconds % length === 0)!
  return `${seconds / length}${unit}`
}
