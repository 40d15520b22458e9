import type { Invocation, Option } from './command.ts'

export const WAIT: Record<string, Option> = { wait: { about: 'answer only when every replica goes by it' } }

/** `--wait`, as the API has it. */
export const waiting = ({ wait }: Invocation['options']) => ({ wait: wait ? 'all' : undefined })
