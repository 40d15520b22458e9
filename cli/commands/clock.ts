import { api, type Json } from '../client.ts'
import { AssayCommand } from '../command.ts'
import { confirm, type YesOptions } from '../confirm.ts'
import { YES } from '../options.ts'
import { DONE, list } from '../output.ts'

export const clock = new AssayCommand('clock').description(
  "Show the database's clock, and confirm it after a jump.",
)

clock
  .command('show')
  .description(
    "Show the database's clock and this machine's. It also shows whether deletion is held after a jump.",
  )
  .example('clock show')
  .show(async () => {
    const state = await api.get('/admin/clock')
    return { json: state, text: list(describe(state)) }
  })

clock
  .command('confirm')
  .description("Confirm that the database's clock is right. Deletion of expired rows then resumes.")
  .addOption(YES)
  .example('clock confirm')
  .show(async (options: YesOptions) => {
    const state = await api.get('/admin/clock')
    if (state.held_until === undefined)
      return { json: state, text: 'deletion is not held, so there is nothing to confirm' }
    const clocks = `the database's clock is at ${state.database_time}, this machine's at ${new Date().toISOString()}`
    await confirm(options, `delete what has expired by the database's clock (${clocks})`, 'right', '"right"')
    await api.post('/admin/clock/confirm', { body: { held_until: state.held_until } })
    return DONE
  })

const describe = ({ database_time, held_until, jumped_at, jump_seconds }: Json) => ({
  database: database_time,
  'this machine': new Date().toISOString(),
  deletion: held_until === undefined ? 'not held' : `held until ${held_until}`,
  ...(held_until !== undefined && { jump: `${jump_seconds} s at ${jumped_at}` }),
})
