import { InvalidArgumentError } from 'commander'

const UNIT_MS = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1_000, ms: 1 }

/** Creates a parser of durations as the settings have them, to whole seconds from `min` on. */
export const parseDuration =
  (min: number, example: string) =>
  (text: string): number => {
    const [, count, unit] = /^(0|[1-9]\d{0,11})(ms|[smhd])$/.exec(text) ?? []
    const seconds = (Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS]) / 1_000
    if (!Number.isInteger(seconds) || seconds < min)
      throw new InvalidArgumentError(
        `Use a number and a unit (s, m, h or d)${min > 0 ? `, at least ${min}s` : ''}, for example ${example}`,
      )
    return seconds
  }

/** Seconds in the largest unit that gives a whole number. A maximum age of 0 means never. */
export function formatSeconds(seconds: number): string {
  if (seconds === 0) return 'never'
  const ms = seconds * 1_000
  const [unit, length] = Object.entries(UNIT_MS).find(([, length]) => ms % length === 0)!
  return `${ms / length}${unit}`
}
