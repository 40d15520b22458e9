import { AssayCommand } from '../command.ts'

export const serve = new AssayCommand('serve')
  .description('Start a server with the settings in the environment.')
  .example('serve')
  .action(async () => void (await import('../../server/main.ts')))
