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

/** Seconds, in the largest unit of which they are a whole number. */
export function inUnits(seconds: number): string {
  const [unit, length] = Object.entries(UNIT).find(([, length]) => seconds > 0 && seconds % length === 0) ?? [
    's',
    1,
  ]
  return `${seconds / length}${unit}`
}
