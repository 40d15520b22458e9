import { AssayCommand } from '../command.ts'

/** The server's main module reads the word `migrate` itself. */
export const migrate = new AssayCommand('migrate')
  .description('Apply the database migrations, and exit.')
  .example('migrate')
  .action(async () => void (await import('../../server/main.ts')))
