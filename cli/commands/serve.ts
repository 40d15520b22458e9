import type { Command } from '../command.ts'

/** The server itself, which reads its verb and its settings where it always does. */
async function serve(): Promise<undefined> {
  await import('../../server/main.ts')
}

export const serving: Command[] = [
  {
    name: 'serve',
    about: 'Serve, by the settings in the environment',
    example: 'serve',
    run: serve,
  },
  {
    name: 'migrate',
    about: 'Bring the database up to date, and end',
    example: 'migrate',
    run: serve,
  },
]
