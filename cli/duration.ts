import { CommandError, EXIT } from './command.ts'

const UNIT = { d: 86_400, h: 3_600, m: 60, s: 1 }

/** `90d` as seconds, as the settings have it. */
export function toSeconds(option: string, text: string): number {
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? []
  if (!count)
    throw new CommandError(
      EXIT.usage,
      `--${option}: a number and a unit (s m h d), for example 15m, or default`,
    )
  return Number(count) * UNIT[unit as keyof typeof UNIT]
}

/** Seconds, in the largest unit of which they are a whole number. 0 is said of an age alone, and means that none is too old. */
export function inUnits(seconds: number): string {
  if (seconds === 0) return 'never'
  const [unit, length] = Object.entries(UNIT).find(([, length]) => seconds % length === 0)!
  return `${seconds / length}${unit}`
}
